"""The data centre of the demonstration: hosts in a box, PostgreSQL, a worker more; in a temporary folder."""

import json
import os
import secrets
import shutil
import signal
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

ROOT = Path(__file__).resolve().parents[2]
SKEP = Path(sys.executable).with_name("skep")
PATIENCE = 60.0


class Centre:
    """Everything of it carries a name of its own, and is gone when the `with` ends."""

    def __init__(self) -> None:
        self.instance = f"dc{secrets.token_hex(2)}"
        self.folder = Path(tempfile.mkdtemp(prefix="skep-datacentre-"))
        self.folder.chmod(0o755)  # PostgreSQL and RabbitMQ have users of their own
        self.subnet = f"198.19.{secrets.randbelow(256)}"
        self.worker: subprocess.Popen[bytes] | None = None
        self.is_gone = False
        listen = f"127.0.0.1:{free_port()}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SKEP_")},
            "SKEP_INSTANCE": self.instance,
            **{f"SKEP_{name.upper()}": str(self.folder / name) for name in ("data", "run", "etc", "log")},
            "SKEP_LISTEN": listen,
            "SKEP_URL": f"http://{listen}",
            "SKEP_BOX_UNDERLAY": f"{self.subnet}.0/24",
            "SKEP_HOST_TIMEOUT": "5s",
            "SKEP_POOL_SIZE": "8GiB",
            "SHOP_PORT": str(free_port()),
        }

    def __enter__(self) -> Self:
        self.environment["SKEP_DATABASE"] = self._database("start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.tear_down()  # where that fails the folder stays: it says what is still to be taken away
        shutil.rmtree(self.folder, ignore_errors=True)

    def tear_down(self) -> None:
        """Once is enough; more does nothing."""
        if self.is_gone:
            return
        self.kill_worker()
        self.skep("purge", "--yes")
        if (self.folder / "postgresql").exists():
            self._database("stop")
        self.is_gone = True

    def up(self, *words: str) -> None:
        self.skep("up", *words)
        self.environment["SKEP_TOKEN"] = (self.folder / "etc" / "admin.token").read_text().strip()

    def start_worker(self) -> None:
        """One more process that carries out runs: same database, same broker."""
        broker = ROOT / "scripts" / "rabbitmq"
        bus = _output([str(broker), "url", str(self.folder / "data-broker")])
        own = {
            "SKEP_BUS": bus,
            "SKEP_DATA": str(self.folder / "worker"),
            "SKEP_RUN": str(self.folder / "worker-run"),
        }
        with (self.folder / "worker.log").open("ab") as log:
            self.worker = subprocess.Popen(
                [SKEP, "worker"], env=self.environment | own, stdout=log, stderr=log, start_new_session=True
            )
        self.until(lambda: b"worker.up" in (self.folder / "worker.log").read_bytes())

    def kill_worker(self) -> None:
        """kill -9."""
        if self.worker is not None:
            self.worker.kill()
            self.worker.wait()

    def kill_control(self) -> None:
        """kill -9: API, one worker and all reconcilers at once; hosts go on."""
        os.kill(int((self.folder / "run" / "skep.pid").read_text()), signal.SIGKILL)

    def skep(self, *words: str) -> str:
        """What the command prints.  Raises RuntimeError: it failed."""
        return _output([str(SKEP), *words], self.environment)

    def get(self, *words: str) -> Any:
        return json.loads(self.skep(*words, "-o", "json"))

    def hosts(self) -> dict[str, str]:
        """Their states."""
        return {one["name"]: one["state"] for one in self.get("host", "ls")}

    def replicas(self, app: str = "shop") -> list[dict[str, Any]]:
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
        for command in (["losetup", "-a"], ["cat", "/proc/self/mountinfo"]):
            found += [line for line in _output(command).splitlines() if str(self.folder) in line]
        for command, mark in (
            (["ip", "address"], f" {self.subnet}."),
            (["nft", "list", "tables"], self.instance),
        ):
            found += [line for line in _output(command).splitlines() if mark in line]
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if str(self.folder).encode() in (path / "environ").read_bytes():
                    found.append(f"process {path.name}")
        return found

    def _database(self, verb: str) -> str:
        return _output([str(ROOT / "scripts" / "postgresql"), verb, str(self.folder / "postgresql")])


def _output(command: list[str], environment: dict[str, str] | None = None) -> str:
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
