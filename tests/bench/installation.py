"""A skep of its own for a benchmark: own instance name, directories, networks and API port."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

Json = dict[str, Any]
_NOT_OURS = ("SKEP_", "PYTHONDONTWRITEBYTECODE")
"""Of the environment: settings of another skep, and what has Python compile every module at every start."""
_ENVIRONMENT = "environment.json"
"""Of its processes: what is needed to purge what a killed benchmark left."""


class Installation:
    """`python -m skep.main up` in directories that vanish at the end, with everything it made.

    Runs beside an installed skep: nothing is shared but the kernel.
    """

    def __init__(
        self,
        *,
        instance: str,
        networks: str,
        links: str,
        pool_size: str,
        edge_http: int = 0,
        more: Mapping[str, str] | None = None,
    ) -> None:
        self.instance = instance
        self.directory = Path(tempfile.mkdtemp(prefix=f"{instance}-", dir="/srv"))
        self.listen = f"127.0.0.1:{free_port()}"
        self.environment: Mapping[str, str] = {
            **{name: value for name, value in os.environ.items() if not name.startswith(_NOT_OURS)},
            "SKEP_INSTANCE": instance,
            "SKEP_DATA": str(self.directory / "data"),
            "SKEP_RUN": str(self.directory / "run"),
            "SKEP_ETC": str(self.directory / "etc"),
            "SKEP_LISTEN": self.listen,
            "SKEP_POOL_SIZE": pool_size,
            "SKEP_NETWORKS": networks,
            "SKEP_LINKS": links,
            "SKEP_EDGE_HTTP": str(edge_http),
            "SKEP_EDGE_HTTPS": "0",
            **(more or {}),
        }
        self.log = self.directory / "skep.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.http = httpx.Client(base_url=f"http://{self.listen}", timeout=300)
        for name in ("data", "run", "etc"):
            (self.directory / name).mkdir()
        (self.directory / _ENVIRONMENT).write_text(json.dumps(self.environment))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()
        if error is not None and self.log.exists():
            print("\n".join(self.log.read_text().splitlines()[-30:]), file=sys.stderr)
        self.stop()
        purge = self._main("purge")
        if purge.wait() == 0:
            shutil.rmtree(self.directory, ignore_errors=True)
        else:
            print(f"purge failed: see {self.log}", file=sys.stderr)

    @property
    def pid(self) -> int:
        if self.process is None:
            raise LookupError("skep is not up")
        return self.process.pid

    def start(self, timeout: float = 60) -> float:
        """Start the server; answers the seconds until its API is ready."""
        began = time.monotonic()
        self.process = self._main("up", "--foreground")
        while not self._ready():
            if self.process.poll() is not None:
                raise RuntimeError(f"skep ended with {self.process.returncode}: see {self.log}")
            if time.monotonic() - began > timeout:
                raise TimeoutError(f"skep did not answer within {timeout} s: see {self.log}")
            time.sleep(0.01)
        took = time.monotonic() - began
        token = (self.directory / "etc" / "admin.token").read_text().strip()
        self.http.headers["Authorization"] = f"Bearer {token}"
        return took

    def kill(self) -> None:
        """As a machine that fails: it has no time for anything."""
        os.kill(self.pid, signal.SIGKILL)
        self.stop()

    def stop(self) -> None:
        """End the server; its containers go on."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def command(self, *words: str) -> str:
        """What `skep …` prints.  Raises RuntimeError, with the end of that: it failed."""
        who = {"SKEP_URL": f"http://{self.listen}", "SKEP_TOKEN": self.http.headers["Authorization"][7:]}
        skep = Path(sys.executable).with_name("skep")
        done = subprocess.run(
            [skep, *words], env={**self.environment, **who}, check=False, capture_output=True, text=True
        )
        if done.returncode:
            said = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
            raise RuntimeError(f"skep {' '.join(words)}: {done.returncode}\n{said}")
        return done.stdout

    def import_image(self, archive: Path, reference: str) -> None:
        with archive.open("rb") as body:
            self.finish(
                self.http.post(
                    "/v1/images/import", params={"reference": reference}, content=body, timeout=300
                )
            )

    def apply(self, app: str, services: Json) -> str | None:
        """Release the app; answers the run without waiting for it."""
        answer = self.http.post(f"/v1/apps/{app}/releases", json={"name": app, "services": services})
        return self._accepted(answer)

    def remove(self, app: str) -> None:
        self.finish(self.http.delete(f"/v1/apps/{app}", params={"volumes": True}))

    def running(self, app: str) -> int:
        """How many replicas of the app run."""
        answer = self.http.get("/v1/replicas", params={"app": app})
        answer.raise_for_status()
        return sum(replica["state"] == "running" for replica in answer.json())

    def wait_running(self, app: str, count: int, *, poll: float, timeout: float) -> None:
        """Raises TimeoutError with what is there instead."""
        deadline = time.monotonic() + timeout
        while (running := self.running(app)) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{running} of {count} replicas of {app} run after {timeout} s")
            time.sleep(poll)

    def finish(self, answer: httpx.Response, timeout: float = 600) -> None:
        """Wait for the run that the answer names, if it names one."""
        if run := self._accepted(answer):
            self.wait_run(run, timeout=timeout)

    def wait_run(self, run: str, *, timeout: float = 600, poll: float = 0.05) -> None:
        """Raises RuntimeError: the run ended otherwise than by success."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.has_succeeded(run):
                return
            time.sleep(poll)
        raise TimeoutError(f"run {run} did not end within {timeout} s")

    def has_succeeded(self, run: str) -> bool:
        """False: it goes on.  Raises RuntimeError: it ended otherwise."""
        record = self.http.get(f"/v1/runs/{run}").raise_for_status().json()["run"]
        if record["state"] in ("failed", "cancelled", "needs-operator"):
            raise RuntimeError(f"{record['title']}: {record['state']}: {record['error']}")
        return bool(record["state"] == "succeeded")

    def _accepted(self, answer: httpx.Response) -> str | None:
        if answer.is_error:
            raise RuntimeError(f"{answer.request.method} {answer.request.url}: {answer.text}")
        run: str | None = answer.json()["run"]
        return run

    def _ready(self) -> bool:
        try:
            return self.http.get("/readyz", timeout=1).status_code == 200
        except httpx.TransportError:
            return False

    def _main(self, *arguments: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "skep.main", *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def sweep(instance: str) -> None:
    """What installations of that name left whose benchmark was killed is gone.  None may be in use."""
    for directory in Path("/srv").glob(f"{instance}-*"):
        with suppress(OSError, ValueError):
            pid = int((directory / "run" / "skep.pid").read_text())
            if b"skep.main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
        with suppress(FileNotFoundError):
            environment = json.loads((directory / _ENVIRONMENT).read_text())
            subprocess.run([sys.executable, "-m", "skep.main", "purge"], env=environment, check=True)
        shutil.rmtree(directory)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
