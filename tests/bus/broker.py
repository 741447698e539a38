"""A RabbitMQ broker for the tests of a session, started when the first of them wants it."""

import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest
from tests import servers
from tests.servers import SCRIPTS, Server


class Broker(Server):
    """`url` is that of the first virtual host, too; `management` that of its management API."""

    name = "RabbitMQ"
    script = SCRIPTS / "rabbitmq"
    management = ""

    def start(self) -> None:
        super().start()
        self.management = self.run("management")

    def control(self, *words: str) -> str:
        """What `rabbitmqctl` does and answers."""
        return self.run("ctl", *words)


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """One for the whole session and process."""
    with serve() as broker:
        yield broker


@pytest.fixture(scope="session")
def own_broker() -> Iterator[Broker]:
    """One beside it for tests that may stop it, if they start it again."""
    with serve() as broker:
        yield broker


@pytest.fixture
def key() -> str:
    """Of the test's own: all tests share the broker."""
    return f"test.{secrets.token_hex(6)}"


def serve(address: str = "127.0.0.1") -> AbstractContextManager[Broker]:
    """A broker for as long as the context, or this process, lives."""
    return servers.serve(Broker, address)
