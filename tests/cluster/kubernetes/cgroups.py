"""Control groups of a machine of the test cluster: kubelet wants its root to be there in each hierarchy."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

_MOUNT = Path("/sys/fs/cgroup")
# The last is version 2 beside version 1, where the container runtime makes groups, too.
_CONTROLLERS = (
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "hugetlb",
    "systemd",
    "unified",
)
_PATIENCE = 30.0


def make(name: str) -> None:
    """The group `name`, a path below the root of each hierarchy."""
    for hierarchy in _hierarchies():
        folder = hierarchy
        for part in name.split("/"):
            parent, folder = folder, folder / part
            if not folder.exists():
                folder.mkdir()
                _prepare(folder, parent)


def remove(name: str) -> None:
    """End what is in the group and below, and remove it."""
    deadline = time.monotonic() + _PATIENCE
    while (left := [path / name for path in _hierarchies() if (path / name).exists()]) and (
        time.monotonic() < deadline
    ):
        for folder in left:
            _end_processes(folder)
            _remove_tree(folder)
        time.sleep(0.05)


def left(name: str) -> list[Path]:
    return [path / name for path in _hierarchies() if (path / name).exists()]


def _hierarchies() -> list[Path]:
    if (_MOUNT / "cgroup.controllers").exists():
        return [_MOUNT]
    return [_MOUNT / name for name in _CONTROLLERS if (_MOUNT / name).is_dir()]


def _prepare(folder: Path, parent: Path) -> None:
    """What a new group needs before it can hold anything: controllers (v2), CPUs (v1's cpuset)."""
    if (offered := parent / "cgroup.controllers").exists():
        for controller in offered.read_text().split():
            with suppress(OSError):  # such as those that only work without processes beside
                (parent / "cgroup.subtree_control").write_text(f"+{controller}")
    for name in ("cpuset.cpus", "cpuset.mems"):
        if folder.is_relative_to(_MOUNT / "cpuset"):
            (folder / name).write_text((parent / name).read_text())


def _end_processes(folder: Path) -> None:
    for path in folder.rglob("cgroup.procs"):
        with suppress(OSError):
            for pid in path.read_text().split():
                os.kill(int(pid), signal.SIGKILL)


def _remove_tree(folder: Path) -> None:
    for path, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            Path(path).rmdir()
