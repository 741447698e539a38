"""The peer: podman with a bridge network, in a storage of its own."""

import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

NETWORK = "skep-bench"


class Podman:
    """Containers as `podman run -d` makes them, with the same image and cgroup manager as skep's.

    Limits are lowered because a container must not ask for more than the machine's hard limits.
    """

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="podman-bench-", dir="/var/tmp"))
        self._names: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove_all()
        self._run("network", "rm", "--force", NETWORK, check=False)
        subprocess.run(
            ["umount", str(self.directory / "storage" / "overlay")], check=False, capture_output=True
        )
        shutil.rmtree(self.directory, ignore_errors=True)

    @staticmethod
    def usable() -> bool:
        return all(shutil.which(tool) for tool in ("podman", "iptables", "runc"))

    def prepare(self, archive: Path, image: str) -> None:
        self._run("import", str(archive), image)
        self._run("network", "create", NETWORK)

    def start(self, name: str, image: str, command: list[str]) -> float:
        """Answers the seconds it took until the container ran."""
        began = time.monotonic()
        limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
        self._run("run", "--detach", "--name", name, "--network", NETWORK, *limits, image, *command)
        took = time.monotonic() - began
        self._names.append(name)
        return took

    def publish(self, name: str, image: str, command: list[str], port: str, variable: str) -> None:
        """A container with a port of the host."""
        limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
        place = ("--network", NETWORK, "--publish", port, "--env", variable)
        self._run("run", "--detach", "--name", name, *place, *limits, image, *command)
        self._names.append(name)

    def start_many(self, prefix: str, count: int, image: str, command: list[str], *, parallel: int) -> float:
        """Answers the seconds until all of them ran."""
        began = time.monotonic()
        with ThreadPoolExecutor(parallel) as pool:
            list(pool.map(lambda number: self.start(f"{prefix}-{number}", image, command), range(count)))
        return time.monotonic() - began

    def remove_all(self) -> None:
        if self._names:
            self._run("rm", "--force", "--time", "0", *self._names, check=False)
            self._names.clear()

    def _run(self, *arguments: str, check: bool = True) -> None:
        options = (
            *("--root", str(self.directory / "storage"), "--runroot", str(self.directory / "run")),
            *("--network-config-dir", str(self.directory / "networks")),
            *("--network-backend", "netavark", "--cgroup-manager", "cgroupfs", "--runtime", "runc"),
        )
        done = subprocess.run(["podman", *options, *arguments], check=False, capture_output=True, text=True)
        if done.returncode and check:
            raise RuntimeError(f"podman {arguments[0]}: {done.stderr.strip()}")
        if done.returncode:
            print(f"podman {arguments[0]}: {done.stderr.strip()}", file=sys.stderr)
