"""The cgroup of builds: all builds of an instance together stay below its limits.

Works with cgroup v1, v2 and the hybrid of both.  Missing controllers are passed over: a build without a
limit is better than none, and the log says so.
"""

import contextlib
from pathlib import Path

import structlog

from skep.model.ids import Bytes

log = structlog.get_logger()

_MOUNT = Path("/sys/fs/cgroup")
_WEIGHT_V1, _WEIGHT_V2 = "128", "13"
"""An eighth of the usual share of the processor."""


class BuildGroup:
    """`name` is the cgroup's path below the root, the same in every hierarchy."""

    def __init__(self, instance: str, *, memory: Bytes, pids: int, mount: Path = _MOUNT) -> None:
        self.name = _name_of(instance)
        self._mount = mount
        self._unified = (mount / "cgroup.controllers").exists()
        self._settings_v1 = {
            "memory": ("memory.limit_in_bytes", str(memory)),
            "pids": ("pids.max", str(pids)),
            "cpu": ("cpu.shares", _WEIGHT_V1),
        }
        self._settings_v2 = {"memory.max": str(memory), "pids.max": str(pids), "cpu.weight": _WEIGHT_V2}

    def prepare(self) -> tuple[Path, ...]:
        """Make the group and set its limits; answers the files through which the tool enters it."""
        return self._prepare_v2() if self._unified else self._prepare_v1()

    def _prepare_v1(self) -> tuple[Path, ...]:
        entrances = []
        for controller, (setting, value) in self._settings_v1.items():
            folder = self._mount / controller / self.name
            if folder.parent.is_dir():
                (folder / "tool").mkdir(parents=True, exist_ok=True)
                _set(folder / setting, value)
                entrances.append(folder / "tool" / "cgroup.procs")
        return tuple(entrances)

    def _prepare_v2(self) -> tuple[Path, ...]:
        """Processes may only be in leaves: the tool in one of its own, beside those of its containers."""
        folder = self._mount / self.name
        _set(self._mount / "cgroup.subtree_control", "+memory +pids +cpu")
        (folder / "tool").mkdir(parents=True, exist_ok=True)
        for setting, value in self._settings_v2.items():
            _set(folder / setting, value)
        _set(folder / "cgroup.subtree_control", "+memory +pids +cpu")
        return (folder / "tool" / "cgroup.procs",)


def remove_build_group(instance: str, mount: Path = _MOUNT) -> None:
    """Remove the group in every hierarchy.  Absent is success."""
    name = _name_of(instance)
    for folder in [mount / name, *mount.glob(f"*/{name}")]:
        for inner in sorted(folder.glob("**/"), reverse=True):
            with contextlib.suppress(OSError):
                inner.rmdir()


def _name_of(instance: str) -> str:
    return f"{instance}-build"


def _set(file: Path, value: str) -> None:
    try:
        file.write_text(value)
    except OSError as error:
        log.warning("build.no_limit", file=str(file), reason=error.strerror)
