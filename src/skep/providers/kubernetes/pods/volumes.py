"""What is mounted into a container: disks, memory, files.  Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from skep.model.errors import InvalidInput
from skep.model.host import ContainerFile, ContainerMount, ContainerSpec
from skep.model.ids import DiskId
from skep.model.needs import MEMORY_MODES

DATA = "data"
"""The folder of a claim that containers see: beside it is room for what arrives for the disk."""
_USUAL_SHM = 64 * 1024 * 1024
_COPIED = "/.skep"
_COPY = """
for found in {to}/* {to}/.[!.]*; do
  [ "$found" = {to}/lost+found ] || [ ! -e "$found" ] || exit 0
done
[ ! -d "$1" ] || cp -a "$1/." {to}/
"""
"""An empty disk receives what the image has at that place."""


@dataclass(frozen=True)
class Volumes:
    """`copies`: containers that run before, one after the other."""

    volumes: list[dict[str, Any]] = field(default_factory=list)
    mounts: list[dict[str, Any]] = field(default_factory=list)
    copies: list[dict[str, Any]] = field(default_factory=list)


def of_spec(spec: ContainerSpec, image: str, claim: Callable[[DiskId], str], files: str) -> Volumes:
    """`files`: the Secret that has the content of `spec.files` by `file_key`.

    Raises:
        InvalidInput: a mount that a cluster does not have.
    """
    made = Volumes()
    for number, mount in enumerate(spec.mounts):
        _add(made, spec, mount, f"mount-{number}", claim, image)
    if spec.shm_size != _USUAL_SHM:
        _memory(made, "shm", "/dev/shm", spec.shm_size, read_only=False)  # noqa: S108 - of the container
    if spec.files:
        _files(made, spec.files, files)
    return made


def claims(pod: Mapping[str, Any]) -> frozenset[str]:
    """Of a pod's specification: the names of those that it mounts."""
    mounted = (one.get("persistentVolumeClaim") for one in pod.get("volumes") or ())
    return frozenset(one["claimName"] for one in mounted if one)


def file_key(file: ContainerFile) -> str:
    return file.digest.replace(":", "-")


def _add(
    made: Volumes,
    spec: ContainerSpec,
    mount: ContainerMount,
    name: str,
    claim: Callable[[DiskId], str],
    image: str,
) -> None:
    if mount.path is not None:
        raise InvalidInput(
            f"{spec.name}: {mount.target} is a path of the host, which a cluster does not give."
        )
    if mount.disk is None:
        if mount.mode not in MEMORY_MODES:
            raise InvalidInput(
                f"{spec.name}: in a cluster the mode of {mount.target} (tmpfs) is always 0777."
            )
        _memory(made, name, mount.target, mount.size, mount.read_only)
        return
    made.volumes.append({"name": name, "persistentVolumeClaim": {"claimName": claim(mount.disk)}})
    made.mounts.append(
        {"name": name, "mountPath": mount.target, "subPath": DATA, "readOnly": mount.read_only}
    )
    if mount.copy_up:
        made.copies.append(_copy(name, mount.target, image))


def _memory(made: Volumes, name: str, target: str, size: int | None, read_only: bool) -> None:
    limit = {} if size is None else {"sizeLimit": str(size)}
    made.volumes.append({"name": name, "emptyDir": {"medium": "Memory"} | limit})
    made.mounts.append({"name": name, "mountPath": target, "readOnly": read_only})


def _copy(name: str, target: str, image: str) -> dict[str, Any]:
    return {
        "name": f"copy-{name}",
        "image": image,
        "command": ["/bin/sh", "-c", _COPY.format(to=_COPIED).replace("$", "$$"), "sh", target],
        "volumeMounts": [{"name": name, "mountPath": _COPIED, "subPath": DATA}],
        "securityContext": {
            "runAsUser": 0,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"], "add": ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"]},
        },
    }


def _files(made: Volumes, files: tuple[ContainerFile, ...], secret: str) -> None:
    items = [
        {"key": file_key(file), "path": str(number), "mode": _mode(file)} for number, file in enumerate(files)
    ]
    made.volumes.append({"name": "files", "secret": {"secretName": secret, "items": items}})
    made.mounts.extend(
        {"name": "files", "mountPath": file.target, "subPath": str(number), "readOnly": True}
        for number, file in enumerate(files)
    )


def _mode(file: ContainerFile) -> int:
    """Files are root's in a cluster: what is another owner's, others may read as that owner might."""
    owner = (file.mode >> 6) & 0o5
    group = (file.mode >> 3) & 0o5
    others = (owner if file.uid else 0) | (group if file.gid else 0)
    return file.mode | others
