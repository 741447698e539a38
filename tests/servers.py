"""Servers that tests start by a script: they are gone when the session ends, however it ends."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, TypeVar

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


class Server:
    """In a directory of its own; `url` is that of its administrator."""

    name: ClassVar[str]
    script: ClassVar[Path]

    def __init__(self, directory: Path, *words: str) -> None:
        """The words come with each start."""
        self.directory = directory
        self.url = ""
        self._words = words

    def start(self) -> None:
        """Start it, or start it again on the same port."""
        self.url = self.run("start", *self._words)

    def stop(self) -> None:
        """End it in order: what was durable is there again after `start`."""
        self.run("stop")

    def kill(self) -> None:
        """End it as a crash would."""
        self.run("kill")

    def run(self, command: str, *words: str) -> str:
        """What the script answers.  Raises RuntimeError: what it complains about."""
        answer = subprocess.run(
            [self.script, command, self.directory, *words],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if answer.returncode:
            raise RuntimeError(answer.stderr.strip() or answer.stdout.strip())
        return answer.stdout.strip()


S = TypeVar("S", bound=Server)


@contextmanager
def serve(kind: type[S], *words: str) -> Iterator[S]:
    """One for as long as the context, or this process, lives."""
    directory = Path(tempfile.mkdtemp(prefix=f"skep-{kind.script.name}-"))
    with _undertaker(kind.script, directory):
        server = kind(directory, *words)
        try:
            server.start()
        except RuntimeError as error:
            pytest.skip(f"no {kind.name}: {error}")
        yield server


@contextmanager
def _undertaker(script: Path, directory: Path) -> Iterator[None]:
    """A process that clears the server away once nobody writes to it any more, as when this one is killed."""
    bury = 'read -r _; "$0" kill "$1"; rm -rf "$1"'
    with subprocess.Popen(
        ["sh", "-c", bury, script, directory],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ):
        yield
