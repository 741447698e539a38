"""Processes of a data centre that can be killed, held and started again, and know when they were down."""

import asyncio
import os
import signal
import ssl
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import httpx
from tests.cluster.server import MAIN

UP = 90.0
"""Seconds in which a process must be up; the machine may be busy."""


class Member:
    """A process of the data centre, which can be killed, held and started again."""

    def __init__(
        self, name: str, verb: str, folder: Path, variables: Mapping[str, str], prefix: Iterable[str] = ()
    ) -> None:
        self.name = name
        self.folder = folder
        self.variables = dict(variables)
        self.outages: list[tuple[float, float]] = []
        """From the moment of a death until it answered again, by `time.monotonic()`."""
        self.prefix = list(prefix)
        self.command = [*prefix, *MAIN, verb]
        self._process: subprocess.Popen[bytes] | None = None
        for part in ("data", "run", "etc"):
            (folder / part).mkdir(parents=True, exist_ok=True, mode=0o700)

    @property
    def environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SKEP_")}
        places = {f"SKEP_{part.upper()}": str(self.folder / part) for part in ("data", "run", "etc")}
        return inherited | places | self.variables

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def kill(self) -> None:
        """kill -9."""
        self.falls()
        self.end()

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def hold(self) -> None:
        """It hangs, and does not know."""
        self.falls()
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def falls(self) -> None:
        self.outages.append((time.monotonic(), float("inf")))

    def is_back(self) -> None:
        if self.outages:
            self.outages[-1] = (self.outages[-1][0], time.monotonic())

    def was_down(self, begun: float, ended: float) -> bool:
        """At some moment of that time."""
        return any(down <= ended and begun <= up for down, up in self.outages)

    def said(self) -> str:
        return f"{self.name}:\n{self.log.read_text()[-2500:] if self.log.exists() else ''}"


class Api(Member):
    """`skep serve`, with a connection to it."""

    url = ""
    client: httpx.AsyncClient

    def connect(self, token: str, context: ssl.SSLContext) -> None:
        self.client = httpx.AsyncClient(
            base_url=f"{self.url}/v1",
            headers={"Authorization": f"Bearer {token}"},
            verify=context,
            timeout=30,
            trust_env=False,
        )

    async def until_it_answers(self) -> None:
        deadline = time.monotonic() + UP
        while time.monotonic() < deadline and self.alive:
            try:
                if (await self.client.get("/hosts", timeout=5)).status_code == 200:
                    self.is_back()
                    return
            except httpx.HTTPError:
                await asyncio.sleep(0.05)
        raise AssertionError(f"It did not come up: {self.said()}")
