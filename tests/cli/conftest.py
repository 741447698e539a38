"""The `skep` command as a process, against a real server with its own world."""

import asyncio
import io
import os
import pty
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.api.conftest import serving
from tests.api.fake_control import FakeControl, World

from skep.cli.app import run

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@dataclass
class Skep:
    """Runs the command in an empty home, in `directory`."""

    url: str
    world: World
    directory: Path
    token: str = "admin-secret"
    extra: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory / "home"),
            "SKEP_URL": self.url,
            "SKEP_TOKEN": self.token,
            "SKEP_ETC": str(self.directory / "etc"),
            "PYTHONPATH": str(REPOSITORY / "src"),
            "COLUMNS": "100",
            "TERM": "xterm-256color",
            **self.extra,
        }

    def __call__(self, *arguments: str, stdin: str = "") -> Done:
        """In this process, which spares the start of another."""
        buffers = [io.BytesIO(stdin.encode()), io.BytesIO(), io.BytesIO()]
        streams = [io.TextIOWrapper(buffer, write_through=True) for buffer in buffers]
        before = dict(os.environ), Path.cwd(), (sys.stdin, sys.stdout, sys.stderr)
        wanted = self.environment()
        try:
            os.environ.clear()
            os.environ.update(wanted)
            os.chdir(self.directory)
            sys.stdin, sys.stdout, sys.stderr = streams
            code = run(arguments)
        finally:
            sys.stdin, sys.stdout, sys.stderr = before[2]
            os.chdir(before[1])
            os.environ.clear()
            os.environ.update(before[0])
        out, err = (buffer.getvalue().decode() for buffer in buffers[1:])
        return Done(int(code), out, err)

    def process(self, *arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        """In a process of its own, with real standard streams."""
        return subprocess.run(
            command(arguments),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env=self.environment(),
            cwd=self.directory,
        )

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            command(arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment(),
            cwd=self.directory,
        )

    def terminal(self, *arguments: str) -> "Terminal":
        return Terminal(command(arguments), self.environment(), self.directory)


def command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "skep.cli.app", *arguments]


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, argv: list[str], environment: Mapping[str, str], directory: Path) -> None:
        self.master, slave = pty.openpty()
        os.set_inheritable(slave, True)
        self.process = subprocess.Popen(
            argv,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=dict(environment),
            cwd=directory,
            start_new_session=True,
            preexec_fn=_own_terminal,
        )
        os.close(slave)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def until(self, text: str, patience: float = 15) -> str:
        """Read until the text has appeared."""
        deadline = time.monotonic() + patience
        while text not in self.seen:
            ready, _, _ = select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{text!r} did not appear in {self.seen!r}"
            try:
                self.seen += os.read(self.master, 65536).decode(errors="replace")
            except OSError:
                assert text in self.seen, f"ended without {text!r}: {self.seen!r}"
        return self.seen

    def wait(self) -> int:
        """Read to the end; answer the exit code."""
        while True:
            try:
                data = os.read(self.master, 65536)
            except OSError:
                break
            if not data:
                break
            self.seen += data.decode(errors="replace")
        return self.process.wait(15)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)


def _own_terminal() -> None:
    """Make stdin the controlling terminal, so that Ctrl-C and resizes arrive as signals."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def skep(tmp_path: Path) -> Iterator[Skep]:
    for folder in ("spool", "home", "etc"):
        (tmp_path / folder).mkdir()
    control = FakeControl(tmp_path / "spool")
    ready, stop = threading.Event(), threading.Event()
    urls: list[str] = []

    async def serve() -> None:
        async with serving(control) as url:
            urls.append(url)
            ready.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(10)
        yield Skep(urls[0], control.world, tmp_path)
    finally:
        stop.set()
        thread.join()
