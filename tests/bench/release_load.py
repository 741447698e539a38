"""Load that counts: wrk for the many, and one of each of what must not be cut.

Everything here is given an address and the name of the site, as a client would have it from its resolver.
"""

import asyncio
import itertools
import json
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import msgspec
from websockets.asyncio.client import connect

SCRIPT = """
wrk.headers["Host"] = "{host}"
{close}
function delay() return {delay} end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('{{"requests":%d,"failed":%d,"status":%d,"p50":%f,"p99":%f,"most":%f,"seconds":%f}}',
    summary.requests, e.connect + e.read + e.write + e.timeout, e.status,
    latency:percentile(50) / 1e6, latency:percentile(99) / 1e6, latency.max / 1e6, summary.duration / 1e6))
end
"""


class Counted(msgspec.Struct, frozen=True):
    """What wrk saw: `failed` connections, answers of another `status` than 2xx and 3xx; seconds."""

    requests: int
    failed: int
    status: int
    p50: float
    p99: float
    most: float
    seconds: float

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


class Wrk:
    """wrk in the background for `seconds`; `namespace`: the network namespace it asks from."""

    def __init__(
        self,
        url: str,
        host: str,
        seconds: int,
        *,
        keep_alive: bool,
        connections: int = 16,
        delay_ms: int = 16,
        namespace: str = "",
    ) -> None:
        self._folder = tempfile.mkdtemp(prefix="skep-bench-wrk-")
        script = Path(self._folder, "script.lua")
        close = "" if keep_alive else 'wrk.headers["Connection"] = "close"'
        script.write_text(SCRIPT.format(host=host, close=close, delay=delay_ms))
        command = [
            *("wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", "--timeout", "10s"),
            *("-s", str(script), url),
        ]
        if namespace:
            command = ["ip", "netns", "exec", namespace, *command]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def finish(self) -> Counted:
        said, _ = self._process.communicate(timeout=300)
        shutil.rmtree(self._folder, ignore_errors=True)
        return msgspec.json.decode(said[said.index("{") :], type=Counted)


class Prober:
    """Threads that ask on a new connection each time, and note who answered, in the order they began."""

    def __init__(self, url: str, host: str, threads: int = 4) -> None:
        self._url, self._host = url, host
        self._enough = threading.Event()
        self._answers: list[tuple[float, float, str]] = []
        self.failed = 0
        self._threads = [threading.Thread(target=self._ask_on, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join()

    def late(self, new: str) -> int:
        """Requests that began after `new` had answered one, and were answered by another revision."""
        first = min((ended for _, ended, who in self._answers if who == new), default=float("inf"))
        return sum(began > first and who != new for began, _, who in self._answers)

    def pause(self) -> float:
        """The longest time in seconds in which no answer came."""
        ends = sorted(ended for _, ended, _ in self._answers)
        return max((after - before for before, after in itertools.pairwise(ends)), default=0.0)

    def _ask_on(self) -> None:
        while not self._enough.is_set():
            began = time.monotonic()
            try:
                answer = httpx.get(self._url, headers={"Host": self._host}, timeout=10, trust_env=False)
                answer.raise_for_status()
                self._answers.append((began, time.monotonic(), answer.text))
            except httpx.HTTPError:
                self.failed += 1


class Held:
    """A download and a WebSocket that last for `seconds`: whether they came to their end whole."""

    def __init__(self, url: str, host: str, seconds: float) -> None:
        self._url, self._host, self._seconds = url, host, seconds
        self.download = 0
        self.echoes = 0
        self.cut: list[str] = []
        self._thread = threading.Thread(target=lambda: asyncio.run(self._hold()), daemon=True)
        self._thread.start()

    def finish(self) -> None:
        self._thread.join()

    async def _hold(self) -> None:
        for what, result in zip(
            ("download", "WebSocket"),
            await asyncio.gather(self._load(), self._talk(), return_exceptions=True),
            strict=True,
        ):
            if isinstance(result, BaseException):
                self.cut.append(f"{what}: {result!r}")

    async def _load(self) -> None:
        async with (
            httpx.AsyncClient(timeout=30, trust_env=False) as client,
            client.stream(
                "GET",
                f"{self._url}/download",
                params={"seconds": self._seconds},
                headers={"Host": self._host},
            ) as answer,
        ):
            async for chunk in answer.aiter_bytes():
                self.download += len(chunk)

    async def _talk(self) -> None:
        address = httpx.URL(self._url)
        url = f"ws://{self._host}/socket"
        async with connect(url, host=address.host, port=address.port or 80, proxy=None) as socket:
            end = time.monotonic() + self._seconds
            while time.monotonic() < end:
                await socket.send(json.dumps(self.echoes))
                await socket.recv()
                self.echoes += 1
                await asyncio.sleep(0.1)
