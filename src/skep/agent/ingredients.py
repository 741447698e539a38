"""What one start of a container needs from the other parts of the host, and the mounts made of it."""

import posixpath
from collections.abc import Iterator
from pathlib import Path

import msgspec

from skep.control.ports import DiskPool, HostFabric, ImageStore, Supplies
from skep.model.errors import InvalidInput
from skep.model.host import ContainerMount, ContainerSpec
from skep.model.ids import DiskId
from skep.providers.local.bundle import BundleMount

_TMPFS_MODE = 0o1777


class Ingredients(msgspec.Struct, frozen=True, kw_only=True):
    """Everything gathered, so that the rest of a start needs nobody's answer."""

    spec: ContainerSpec
    layers: tuple[Path, ...]
    system: Path
    disks: dict[DiskId, Path]
    files: tuple[bytes, ...]
    """In the order of `spec.files`."""
    netns: Path | None
    addresses: tuple[str, ...]


class Pantry:
    """Where the ingredients come from."""

    def __init__(
        self, *, disks: DiskPool, fabric: HostFabric, images: ImageStore, supplies: Supplies
    ) -> None:
        self._disks = disks
        self._fabric = fabric
        self._images = images
        self._supplies = supplies

    async def gather(self, spec: ContainerSpec) -> Ingredients:
        """Raises NotFound: the image, a disk or a file is not there."""
        wanted = {mount.disk for mount in spec.mounts if mount.disk}
        return Ingredients(
            spec=spec,
            layers=await self._images.unpack(spec.image),
            system=await self._disks.path(spec.system_disk),
            disks={disk: await self._disks.path(disk) for disk in sorted(wanted)},
            files=tuple([await self._supplies.file(file.digest) for file in spec.files]),
            netns=self._fabric.sandbox(spec.replica) if spec.ports else None,
            addresses=tuple([str((await self._supplies.port(port)).address) for port in spec.ports]),
        )


def hosts_file(spec: ContainerSpec, addresses: tuple[str, ...]) -> str:
    """/etc/hosts: itself, and what Compose's `extra_hosts` adds."""
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    lines += [f"{address}\t{spec.hostname}" for address in addresses or ("127.0.1.1",)]
    lines += [f"{address}\t{name}" for name, address in spec.extra_hosts.items()]
    return "\n".join(lines) + "\n"


def resolver_file(spec: ContainerSpec) -> str:
    """/etc/resolv.conf: the network's own resolver, or nobody."""
    return f"nameserver {spec.nameserver}\noptions ndots:0\n" if spec.nameserver else ""


def volume_mounts(ingredients: Ingredients) -> Iterator[BundleMount]:
    """Disks, host paths and tmpfs; parents come before what is mounted inside them.

    Raises:
        InvalidInput: a target is no absolute path below the root, or the kernel's own.
    """
    for mount in sorted(ingredients.spec.mounts, key=lambda mount: mount.target.rstrip("/").count("/")):
        check_target(mount.target, of_host=mount.path is not None)
        yield _volume(mount, ingredients)


def check_target(target: str, *, of_host: bool = False) -> None:
    """Raises InvalidInput: nothing can be mounted there (a path of the host, for admins, nearly anywhere)."""
    clean = posixpath.normpath("/" + target.lstrip("/"))
    kernel = clean == "/dev" or f"{clean}/".startswith(("/proc/", "/sys/"))
    if not target.startswith("/") or not target.strip("/") or (kernel and not of_host):
        raise InvalidInput(f"nothing can be mounted at '{target[:80]}'")


def _volume(mount: ContainerMount, ingredients: Ingredients) -> BundleMount:
    source = ingredients.disks[mount.disk] if mount.disk else mount.path
    access = "ro" if mount.read_only else "rw"
    if source is not None:
        options = ("rbind" if mount.path else "bind", "rprivate", "nosuid", "nodev", access)
        return BundleMount(destination=mount.target, source=str(source), options=options)
    size = (f"size={mount.size}",) if mount.size else ()
    mode = f"mode={mount.mode if mount.mode is not None else _TMPFS_MODE:o}"
    options = ("nosuid", "nodev", "noexec", access, mode, *size)
    return BundleMount(destination=mount.target, type="tmpfs", source="tmpfs", options=options)
