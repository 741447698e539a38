"""Control groups of containers, whatever the host offers: v1, hybrid, or v2.

A container's group has the same path, `/<instance>/<container id>`, under every controller.  The OCI
runtime makes and configures it; here it is read, killed and removed.
Formats: the kernel's Documentation/admin-guide/cgroup-v1 and cgroup-v2.
"""

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Literal

from skep.model.errors import HostFailure
from skep.model.host import ContainerUsage
from skep.model.ids import Bytes

_ROOT = Path("/sys/fs/cgroup")
_V1_UNLIMITED = 2**62
"""v1 says "no limit" as the largest multiple of a page below 2^63."""
_PATIENCE = 5.0
Mode = Literal["v1", "v2", "hybrid"]


class Cgroups:
    """The groups of one instance."""

    def __init__(self, instance: str, root: Path = _ROOT) -> None:
        self.instance = instance
        self.root = root
        self.mode = _mode(root)

    def path(self, container: str) -> str:
        """The group as the OCI config names it: from the root of each hierarchy."""
        return f"/{self.instance}/{container}"

    def contains(self, container: str, pid: int) -> bool:
        """Whether the process is in the container's group, or below it."""
        try:
            text = Path(f"/proc/{pid}/cgroup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False
        groups = {line.split(":", 2)[2] for line in text.splitlines()}
        own = self.path(container)
        return any(group == own or group.startswith(f"{own}/") for group in groups)

    def members(self) -> list[str]:
        """The containers that have a group."""
        base = self._directory("pids", "")
        return [entry.name for entry in base.iterdir() if entry.is_dir()] if base.is_dir() else []

    def oom_kills(self, container: str) -> int:
        """How many of its processes the kernel killed for want of memory."""
        if self.mode == "v2":
            return _field(self._directory("", container) / "memory.events", "oom_kill")
        return _field(self._directory("memory", container) / "memory.oom_control", "oom_kill")

    def usage(self, container: str) -> ContainerUsage:
        """CPU, memory and processes now; zeros when the container has no group (it does not run)."""
        return self._usage_v2(container) if self.mode == "v2" else self._usage_v1(container)

    def kill(self, container: str) -> None:
        """SIGKILL everything in the group and wait until it is empty.

        Raises:
            HostFailure: a process does not die (it hangs in the kernel).
        """
        deadline = time.monotonic() + _PATIENCE
        while pids := self._pids(container):
            self._kill_all(container, pids)
            if time.monotonic() > deadline:
                raise HostFailure(
                    f"The processes {pids[:5]} of a container do not die; they hang in the kernel."
                )
            time.sleep(0.005)

    def remove(self, container: str) -> None:
        """Remove the (empty) group everywhere; no group is success."""
        for hierarchy in self._hierarchies():
            _remove_tree(hierarchy / self.instance / container)

    def remove_instance(self) -> None:
        """Remove the instance's own group if no container is left in it."""
        for hierarchy in self._hierarchies():
            with contextlib.suppress(OSError):
                (hierarchy / self.instance).rmdir()

    def _usage_v2(self, container: str) -> ContainerUsage:
        group = self._directory("", container)
        return ContainerUsage(
            cpu_seconds=_field(group / "cpu.stat", "usage_usec") / 1e6,
            memory=_without_cache(group / "memory.current", group / "memory.stat", "inactive_file"),
            memory_limit=_limit(group / "memory.max"),
            pids=_value(group / "pids.current"),
        )

    def _usage_v1(self, container: str) -> ContainerUsage:
        memory = self._directory("memory", container)
        return ContainerUsage(
            cpu_seconds=_value(self._directory("cpuacct", container) / "cpuacct.usage") / 1e9,
            memory=_without_cache(
                memory / "memory.usage_in_bytes", memory / "memory.stat", "total_inactive_file"
            ),
            memory_limit=_limit(memory / "memory.limit_in_bytes"),
            pids=_value(self._directory("pids", container) / "pids.current"),
        )

    def _pids(self, container: str) -> list[int]:
        groups = [Path(place) for place, _, _ in os.walk(self._directory("pids", container))]
        return sorted({int(line) for group in groups for line in _lines(group / "cgroup.procs")})

    def _kill_all(self, container: str, pids: list[int]) -> None:
        switch = self._directory("", container) / "cgroup.kill"
        if self.mode == "v2" and switch.exists():
            switch.write_text("1")
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _directory(self, controller: str, container: str) -> Path:
        base = self.root if self.mode == "v2" else self.root / controller
        return base / self.instance / container

    def _hierarchies(self) -> list[Path]:
        if self.mode == "v2":
            return [self.root]
        return [entry for entry in self.root.iterdir() if entry.is_dir() and not entry.is_symlink()]


def swap_accounting(cgroups: Cgroups) -> bool:
    """Whether the kernel limits swap per group."""
    if cgroups.mode == "v2":
        return Path("/proc/swaps").exists()
    return (cgroups.root / "memory" / "memory.memsw.limit_in_bytes").exists()


def _mode(root: Path) -> Mode:
    if (root / "cgroup.controllers").exists():
        return "v2"
    return "hybrid" if (root / "unified" / "cgroup.controllers").exists() else "v1"


def _remove_tree(group: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    for directory, _, _ in os.walk(group, topdown=False):
        while True:
            try:
                Path(directory).rmdir()
                break
            except FileNotFoundError:
                break
            except OSError as error:  # EBUSY while the last process is being reaped
                if time.monotonic() > deadline:
                    raise HostFailure(f"The control group {directory} cannot be removed: {error}") from error
                time.sleep(0.005)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []


def _field(file: Path, name: str) -> int:
    return next((int(line.split()[1]) for line in _lines(file) if line.split()[:1] == [name]), 0)


def _value(file: Path) -> int:
    return next((int(line) for line in _lines(file) if line.isdecimal()), 0)


def _limit(file: Path) -> Bytes | None:
    value = _value(file)
    return Bytes(value) if 0 < value < _V1_UNLIMITED else None


def _without_cache(current: Path, stat: Path, cache: str) -> Bytes:
    """As `docker stats`: what was read from files and can be dropped at once does not count."""
    return Bytes(max(0, _value(current) - _field(stat, cache)))
