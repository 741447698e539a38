"""The process under test and a client of its API that outlives its deaths."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec

from skep.configuration import Configuration

JSON = dict[str, Any]


MAIN = (sys.executable, "-m", "skep.main")


def environment(settings: Configuration) -> dict[str, str]:
    """The settings as the process reads them."""
    return {
        f"SKEP_{key.upper()}": str(value)
        for key, value in msgspec.structs.asdict(settings).items()
        if value is not None and not isinstance(value, tuple)
    }


class Server:
    def __init__(self, settings: Configuration, log: Path) -> None:
        self.settings = settings
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._client = httpx.AsyncClient(base_url=f"http://{settings.listen}/v1", timeout=10)

    async def up(self) -> None:
        """Start it and wait until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*MAIN, "up"], env=os.environ | environment(self.settings), stdout=log, stderr=log
            )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.alive:
            try:
                if (await self._client.get(f"http://{self.settings.listen}/readyz")).status_code == 200:
                    break
            except httpx.HTTPError:
                await asyncio.sleep(0.05)
        else:
            raise AssertionError(f"skep did not come up:\n{self._log.read_text()[-3000:]}")
        token = (self.settings.etc / "admin.token").read_text().strip()
        self._client.headers["Authorization"] = f"Bearer {token}"

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def down(self) -> None:
        """`skep down`: the server ends, its containers too."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
        subprocess.run([*MAIN, "down"], env=os.environ | environment(self.settings), check=True)

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    async def close(self) -> None:
        self.kill()
        await self._client.aclose()

    async def apply(self, spec: JSON, *, expect: str = "succeeded") -> JSON:
        answer = await self.ask("POST", f"/apps/{spec['name']}/releases", json=spec)
        run = await self.ended(answer["run"])
        assert run["state"] == expect, run
        return run

    async def try_(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """The answer as it is, problem or not."""
        return await self._client.request(method, path, **arguments)

    async def runs(self, app: str, replica: str, timeout: float = 20) -> JSON:
        """The replica, once it runs."""
        view: JSON = {}
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for view in await self.ask("GET", f"/replicas?app={app}"):
                if view["name"] == replica and view["state"] == "running":
                    return view
            await asyncio.sleep(0.05)
        raise AssertionError(f"{app}/{replica} does not run: {view}\n{self._log.read_text()[-3000:]}")

    async def load(self, archive: Path) -> None:
        answer = await self.ask(
            "POST", "/images/import?reference=busybox:1&shared=true", content=archive.read_bytes()
        )
        assert (await self.ended(answer["run"]))["state"] == "succeeded"

    async def ask(self, method: str, path: str, **arguments: Any) -> Any:
        """The answer, decoded; a problem is an AssertionError."""
        response = await self._client.request(method, path, **arguments)
        assert response.status_code < 400, f"{method} {path}: {response.status_code} {response.text}"
        return response.json() if response.content else None

    async def status(self, path: str) -> int:
        return (await self._client.get(path)).status_code

    async def ended(self, run: str, timeout: float = 60) -> JSON:
        """The run, once it has ended."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            view: JSON = (await self.ask("GET", f"/runs/{run}"))["run"]
            if view["state"] in ("succeeded", "failed", "cancelled", "needs-operator"):
                return view
            await asyncio.sleep(0.05)
        raise AssertionError(f"run {run} did not end: {view}\n{self._log.read_text()[-3000:]}")

    async def quiet(self, timeout: float = 60) -> None:
        """Wait until no run is active."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if not await self.ask("GET", "/runs?active=true"):
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"runs go on: {await self.ask('GET', '/runs?active=true')}")
