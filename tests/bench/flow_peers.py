"""The same work done by other engines, each in a process of the Python that `scripts/install --bench` made.

A peer that is not installed is not measured, and the figure says so by having none.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which

import msgspec
from tests.bench.installation import free_port

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / "build" / "peers" / "bin" / "python"


class Peer(msgspec.Struct, frozen=True):
    """What a peer did: its name and version, its settings, its speed."""

    peer: str
    how: str
    steps_per_second: float


def measured(name: str, url: str, seconds: float, at_once: int) -> Peer | None:
    """Run `peers_<name>.py` for about so many seconds; None, with the reason told, if it cannot be."""
    if not PYTHON.exists():
        print("peers are not installed (scripts/install --bench): none is measured", file=sys.stderr)
        return None
    script = ROOT / "tests" / "bench" / f"peers_{name}.py"
    command = [str(PYTHON), str(script), url, str(seconds), str(at_once)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds * 4 + 120, check=False)
    if done.returncode:
        print(f"{name} failed and is not measured:\n{done.stderr[-2000:]}", file=sys.stderr)
        return None
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Peer)


def best(name: str, urls: list[str], seconds: float, at_once: list[int]) -> Peer | None:
    """The fastest of several numbers of workflows at once, each on a database of its own."""
    found = [measured(name, url, seconds, count) for url, count in zip(urls, at_once, strict=True)]
    return max(filter(None, found), key=lambda peer: peer.steps_per_second, default=None)


def plain(url: str) -> str:
    """The URL as other programs spell it: without the driver of ours."""
    return url.replace("+asyncpg", "").replace("+aiosqlite", "")


@contextmanager
def redis(directory: Path) -> Iterator[str | None]:
    """A Redis that writes each change to the disk before it answers (`appendfsync always`); its URL."""
    program, port = which("redis-server"), free_port()
    if program is None:
        print("redis-server is missing: Celery is not measured", file=sys.stderr)
        yield None
        return
    directory.mkdir()
    options = ["--bind", "127.0.0.1", "--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    server = subprocess.Popen(
        [program, "--port", str(port), "--dir", directory, *options], stdout=subprocess.DEVNULL
    )
    try:
        await_answer(port)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait()


def await_answer(port: int, patience: float = 10) -> None:
    deadline = time.monotonic() + patience
    while subprocess.run(["redis-cli", "-p", str(port), "ping"], capture_output=True, check=False).returncode:
        if time.monotonic() > deadline:
            raise TimeoutError("redis-server does not answer")
        time.sleep(0.05)
