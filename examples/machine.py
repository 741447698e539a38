"""An installation of skep for a demonstration: name, directories and ports of its own."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[1]
SKEP = Path(sys.executable).with_name("skep")
PATIENCE = 60.0


class Machine:
    """Everything of it carries its name, and is gone when the `with` ends."""

    def __init__(self, prefix: str) -> None:
        self.instance = f"{prefix}{secrets.token_hex(2)}"
        self.folder = Path(tempfile.mkdtemp(prefix=f"skep-demo-{prefix}-"))
        self.folder.chmod(0o755)  # some programs have users of their own
        self.is_gone = False
        listen = f"127.0.0.1:{free_port()}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SKEP_")},
            "SKEP_INSTANCE": self.instance,
            **{f"SKEP_{name.upper()}": str(self.folder / name) for name in ("data", "run", "etc", "log")},
            "SKEP_LISTEN": listen,
            "SKEP_URL": f"http://{listen}",
            "SKEP_POOL_SIZE": "8GiB",
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.tear_down()  # where that fails the folder stays: it says what is still to be taken away
        shutil.rmtree(self.folder, ignore_errors=True)

    def tear_down(self) -> None:
        """Once is enough; more does nothing."""
        if not self.is_gone:
            self.skep("purge", "--yes")
            self.is_gone = True

    def up(self, *words: str) -> None:
        self.skep("up", *words)
        self.environment["SKEP_TOKEN"] = (self.folder / "etc" / "admin.token").read_text().strip()

    def skep(self, *words: str) -> str:
        """What the command prints.  Raises RuntimeError: it failed."""
        return output([str(SKEP), *words], self.environment)

    def get(self, *words: str) -> Any:
        return json.loads(self.skep(*words, "-o", "json"))

    def replicas(self, app: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("ps", app)
        return found

    def until(self, true: Callable[[], bool], patience: float = PATIENCE) -> bool:
        """Wait for it; answers whether it came true."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            with suppress(RuntimeError):  # an API that is down comes back
                if true():
                    return True
            time.sleep(0.2)
        return False

    def left(self) -> list[str]:
        """What is still on the machine that was ours."""
        found = [path.name for path in Path("/run/netns").glob(f"{self.instance}-*")]
        found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{self.instance}*")]
        for command, mark in (
            (["losetup", "-a"], str(self.folder)),
            (["cat", "/proc/self/mountinfo"], str(self.folder)),
            (["nft", "list", "tables"], self.instance),
        ):
            found += [line for line in output(command).splitlines() if mark in line]
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if str(self.folder).encode() in (path / "environ").read_bytes():
                    found.append(f"process {path.name}")
        return found


def output(command: list[str], environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        env=environment,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr.strip()[-1500:]}")
    return done.stdout.strip()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
