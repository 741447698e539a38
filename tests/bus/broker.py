"""A RabbitMQ broker for the tests of a session, started when the first of them wants it."""

import secrets
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "rabbitmq"


class Broker:
    """In a directory of its own; `url` is that of its administrator and of the first virtual host,
    `management` that of its management API."""

    def __init__(self, directory: Path, address: str = "127.0.0.1") -> None:
        self.directory = directory
        self.address = address
        self.url = ""
        self.management = ""

    def start(self) -> None:
        """Start it, or start it again on the same port."""
        self.url = self._script("start", self.address)
        self.management = self._script("management")

    def stop(self) -> None:
        """End it in order."""
        self._script("stop")

    def kill(self) -> None:
        """End it as a crash would."""
        self._script("kill")

    def control(self, *words: str) -> str:
        """What `rabbitmqctl` does and answers."""
        return self._script("ctl", *words)

    def _script(self, command: str, *words: str) -> str:
        answer = subprocess.run(
            [SCRIPT, command, self.directory, *words],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if answer.returncode:
            raise RuntimeError(answer.stderr.strip() or answer.stdout.strip())
        return answer.stdout.strip()


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """One for the whole session and process; it is gone when the session ends, however it ends."""
    with serve() as broker:
        yield broker


@pytest.fixture(scope="module")
def own_broker() -> Iterator[Broker]:
    """One for the tests of one file alone, which may stop it if they start it again."""
    with serve() as broker:
        yield broker


@pytest.fixture
def key() -> str:
    """Of the test's own: all tests share the broker."""
    return f"test.{secrets.token_hex(6)}"


@contextmanager
def serve(address: str = "127.0.0.1") -> Iterator[Broker]:
    """A broker for as long as the context, or this process, lives."""
    directory = Path(tempfile.mkdtemp(prefix="skep-rabbitmq-"))
    with _undertaker(directory):
        broker = Broker(directory, address)
        try:
            broker.start()
        except RuntimeError as error:
            pytest.skip(f"no RabbitMQ: {error}")
        yield broker


@contextmanager
def _undertaker(directory: Path) -> Iterator[None]:
    """A process that clears the broker away once nobody writes to it any more, as when this one is killed."""
    bury = 'read -r _; "$0" kill "$1"; rm -rf "$1"'
    with subprocess.Popen(
        ["sh", "-c", bury, SCRIPT, directory],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ):
        yield
