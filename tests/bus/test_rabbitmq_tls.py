"""The way to the broker is encrypted, and the broker proves who it is."""

import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.bus.broker import serve
from tests.bus.inbox import Inbox, letter
from yarl import URL

from skep.bus.rabbitmq import RabbitMqBus
from skep.model.errors import Unavailable


@pytest.fixture(scope="module")
def encrypted() -> Iterator[tuple[str, Path]]:
    """The URL of a broker with TLS, and the certificate it proves itself with."""
    with serve() as broker:
        certificate = make_certificate(broker.directory)
        port = free_port()
        (broker.directory / "extra.conf").write_text(
            f"listeners.ssl.1 = 127.0.0.1:{port}\n"
            f"ssl_options.certfile = {certificate}\n"
            f"ssl_options.keyfile = {broker.directory}/key.pem\n"
        )
        broker.stop()
        broker.start()
        yield str(URL(broker.url).with_scheme("amqps").with_port(port)), certificate


def make_certificate(folder: Path) -> Path:
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=broker"
    )
    words: list[str | Path] = [
        *command.split(),
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-out",
        certificate,
        "-keyout",
        key,
    ]
    subprocess.run(words, check=True, capture_output=True)
    key.chmod(0o644)
    return certificate


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


async def test_commands_travel_over_tls(encrypted: tuple[str, Path], key: str) -> None:
    url, certificate = encrypted
    inbox = Inbox()

    trust = ssl.create_default_context(cafile=str(certificate))
    async with RabbitMqBus(url, ssl_context=trust) as bus, bus.serve(key, inbox.take):
        await bus.send(key, letter())

        assert (await inbox.has(1))[0].id == "m-1"


async def test_a_broker_that_cannot_prove_itself_gets_no_password(
    encrypted: tuple[str, Path], key: str
) -> None:
    url, _ = encrypted

    async with RabbitMqBus(url, patience=1) as bus:
        with pytest.raises(Unavailable, match="certificate"):
            await bus.send(key, letter())
