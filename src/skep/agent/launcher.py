"""From ingredients to a running container, and back to nothing.  Blocks; the agent calls it from threads.

On the host a container is: its bundle and mounted root file system under `run` (lost at a reboot, made
again), its secrets in memory, its configs and log under `data`, a control group, two processes.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import structlog

from skep.agent.copy_up import copy_up
from skep.agent.ingredients import Ingredients, check_target, hosts_file, resolver_file, volume_mounts
from skep.agent.records import Records
from skep.agent.refusals import explain, host_failure, named
from skep.model.errors import InvalidInput, SkepError, Unsupported
from skep.model.host import ContainerSpec
from skep.model.ids import ContainerId
from skep.providers.local.accounts import Accounts, Identity
from skep.providers.local.bundle import Bundle, BundleMount, config, granted_limits
from skep.providers.local.kernel import (
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    is_mounted,
    mount,
    unmount,
)
from skep.providers.local.overlay import mount_overlay, unmount_overlay
from skep.providers.local.runtime import Runtime, StartRefused
from skep.providers.local.user_limits import raise_user_limits

_log = structlog.get_logger(__name__)
_BIND = ("bind", "rprivate", "nosuid", "nodev")


class Launcher:
    """Makes and removes what a container is on the host.  Every call may be repeated after a crash."""

    def __init__(self, *, runtime: Runtime, records: Records, run: Path) -> None:
        self._runtime = runtime
        self._records = records
        self._secrets = run / "secrets"

    def prepare(self) -> None:
        """Make what all containers share."""
        self._runtime.prepare()
        raise_user_limits()
        self._secrets.mkdir(mode=0o700, parents=True, exist_ok=True)

    def launch(self, ingredients: Ingredients) -> int:
        """Start the container from scratch; answer the pid of its first process.

        Raises:
            InvalidInput: program, user or a mount make no sense in this image.
            HostFailure: the host refuses.  Either way nothing but record and log is left.
        """
        spec = ingredients.spec
        try:
            self.clear(spec.id)
            self._write_bundle(ingredients)
            return self._start(spec)
        except BaseException as error:
            self.clear(spec.id)
            if isinstance(error, OSError):
                raise host_failure(spec, error) from error
            if isinstance(error, SkepError):
                raise named(spec, error) from error
            raise

    def relaunch(self, spec: ContainerSpec) -> int:
        """Start it again from the bundle that is there: needs nobody's answer.  Raises as `launch`."""
        self._runtime.delete(spec.id)
        return self._start(spec)

    def can_relaunch(self, container: ContainerId) -> bool:
        """Whether the bundle of the last start is still whole."""
        bundle = self._runtime.bundle(container)
        return (bundle / "config.json").exists() and is_mounted(bundle / "rootfs")

    def clear(self, container: ContainerId) -> None:
        """Kill it and remove all but record, configs and log."""
        self._runtime.delete(container)
        bundle = self._runtime.bundle(container)
        unmount_overlay(bundle / "rootfs")
        shutil.rmtree(bundle, ignore_errors=True)
        shutil.rmtree(self._secrets / container, ignore_errors=True)

    def remove(self, container: ContainerId) -> None:
        """Remove everything."""
        self.clear(container)
        self._records.delete(container)

    def left(self) -> set[str]:
        """Every container of which anything is on the host."""
        secrets = {entry.name for entry in self._secrets.iterdir()} if self._secrets.is_dir() else set()
        return self._runtime.known() | secrets

    def _start(self, spec: ContainerSpec) -> int:
        log = self._records.log(spec.id)
        try:
            return self._runtime.start(spec.id, log, tty=spec.tty, stdin=spec.stdin_open).pid
        except StartRefused as error:
            self._runtime.delete(spec.id)
            raise explain(spec, str(error)) from error

    def _write_bundle(self, ingredients: Ingredients) -> None:
        spec = ingredients.spec
        bundle = self._runtime.bundle(spec.id)
        bundle.mkdir(mode=0o700, parents=True, exist_ok=True)
        rootfs = bundle / "rootfs"
        mount_overlay(ingredients.layers, ingredients.system, rootfs)
        self._fill_empty_disks(ingredients, rootfs)
        _check_args(spec)
        content = config(
            Bundle(
                spec=spec,
                rootfs=rootfs,
                cgroup=self._runtime.cgroups.path(spec.id),
                identity=self._identify(spec, rootfs),
                mounts=tuple(self._mounts(ingredients, bundle)),
                netns=ingredients.netns,
                init=self._init(spec),
            ),
            self._runtime.host,
        )
        (bundle / "config.json").write_bytes(msgspec.json.encode(content))

    def _identify(self, spec: ContainerSpec, rootfs: Path) -> Identity:
        granted = granted_limits(spec.ulimits, self._runtime.host)
        for name, wanted in spec.ulimits.items():
            if granted[name] != wanted:
                _log.info("container.ulimit-cut", name=spec.name, ulimit=name, hard=granted[name].hard)
        return Accounts.of(rootfs).identify(spec.user, spec.group_add)

    def _init(self, spec: ContainerSpec) -> Path | None:
        if spec.init and not self._runtime.init:
            raise Unsupported(
                f"{spec.name}: 'init: true' needs an init program on the host: apt-get install tini."
            )
        return self._runtime.init if spec.init else None

    def _fill_empty_disks(self, ingredients: Ingredients, rootfs: Path) -> None:
        for mount_ in ingredients.spec.mounts:
            if mount_.disk and mount_.copy_up:
                copy_up(rootfs, mount_.target, ingredients.disks[mount_.disk])
            if mount_.path and mount_.create_host_path:
                mount_.path.mkdir(parents=True, exist_ok=True)

    def _mounts(self, ingredients: Ingredients, bundle: Path) -> Iterator[BundleMount]:
        """Volumes over the engine's own files: whoever mounts all of /etc wants that."""
        yield from _network_files(ingredients)
        yield from volume_mounts(ingredients)
        yield from self._files(ingredients)

    def _files(self, ingredients: Ingredients) -> Iterator[BundleMount]:
        spec = ingredients.spec
        for number, (file, content) in enumerate(zip(spec.files, ingredients.files, strict=True)):
            check_target(file.target)
            source = self._file_folder(spec.id, file.secret) / str(number)
            _write(source, content, uid=file.uid, gid=file.gid, mode=file.mode)
            yield BundleMount(destination=file.target, source=str(source), options=(*_BIND, "noexec", "ro"))

    def _file_folder(self, container: ContainerId, secret: bool) -> Path:
        return self._secret_folder(container) if secret else self._records.directory(container) / "files"

    def _secret_folder(self, container: ContainerId) -> Path:
        """In memory, and never swapped where the kernel can promise that (`noswap`, Linux 6.3)."""
        if not is_mounted(self._secrets):
            flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
            try:
                mount("tmpfs", self._secrets, "tmpfs", flags, "mode=700,noswap")
            except OSError:
                mount("tmpfs", self._secrets, "tmpfs", flags, "mode=700")
        return self._secrets / container


def forget_secrets(run: Path) -> None:
    """Unmount the memory that held the secrets of all containers."""
    unmount(run / "secrets")


def _network_files(ingredients: Ingredients) -> Iterator[BundleMount]:
    """Containers may write them, hence on the system disk: what grows there counts against its quota."""
    spec, folder = ingredients.spec, ingredients.system / "etc"
    contents = {
        "hosts": hosts_file(spec, ingredients.addresses),
        "hostname": f"{spec.hostname}\n",
        "resolv.conf": resolver_file(spec),
    }
    for name, content in contents.items():
        if not _holds(folder / name, content.encode()):  # a full disk has room for what is there already
            _write(folder / name, content.encode(), uid=0, gid=0, mode=0o644)
        yield BundleMount(destination=f"/etc/{name}", source=str(folder / name), options=(*_BIND, "rw"))


def _holds(path: Path, content: bytes) -> bool:
    """Asked of the size first: a container may have made it as large as its disk."""
    try:
        facts = path.lstat()
        like = facts.st_size == len(content) and facts.st_mode & 0o7777 == 0o644
        return like and path.read_bytes() == content
    except FileNotFoundError:
        return False


def _write(path: Path, content: bytes, *, uid: int, gid: int, mode: int) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
        file.write(content)
        os.fchown(descriptor, uid, gid)
        os.fchmod(descriptor, mode)


def _check_args(spec: ContainerSpec) -> None:
    if not spec.args or not spec.args[0]:
        raise InvalidInput(f"{spec.name}: neither the image nor the service names a program; add 'command'.")
