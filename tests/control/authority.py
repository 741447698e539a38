"""Pebble, Let's Encrypt's authority for tests, on loopback; and the web server that it asks for proofs."""

import asyncio
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from skep.providers.acme import AcmeIssuer

LOOPBACK = "127.0.0.1"


class Authority:
    """Every name leads to loopback; proofs are asked for at `proofs`."""

    def __init__(self, folder: Path) -> None:
        self.certificate = folder / "pebble.pem"
        self.listen, self.proofs, self.names = _port(), _port(), _port()
        key = folder / "pebble.key"
        _certify(self.certificate, key)
        self._config = folder / "pebble.json"
        self._config.write_bytes(msgspec.json.encode({"pebble": self._settings(key)}))

    def _settings(self, key: Path) -> dict[str, object]:
        return {
            "listenAddress": f"{LOOPBACK}:{self.listen}",
            "certificate": str(self.certificate),
            "privateKey": str(key),
            "httpPort": self.proofs,
            "tlsPort": _port(),
        }

    @property
    def directory(self) -> str:
        return f"https://localhost:{self.listen}/dir"

    @property
    def issuer(self) -> AcmeIssuer:
        return AcmeIssuer(self.directory, "ann@example.com", self.certificate)

    @contextmanager
    def running(self) -> Iterator[None]:
        resolver = f"{LOOPBACK}:{self.names}"
        off = [word for kind in ("http01", "https01", "tlsalpn01") for word in (f"-{kind}", "")]
        with ExitStack() as stack:
            for command in (
                ["pebble-challtestsrv", "-dns01", resolver, "-management", "", "-defaultIPv6", "", *off],
                ["pebble", "-config", str(self._config), "-dnsserver", resolver],
            ):
                stack.enter_context(_process(command))
            _await(self.listen)
            yield


@contextmanager
def authority() -> Iterator[Authority]:
    with tempfile.TemporaryDirectory(prefix="skep-pebble-") as folder:
        made = Authority(Path(folder))
        with made.running():
            yield made


@asynccontextmanager
async def proof_server(port: int, shown: Callable[[str], str]) -> AsyncIterator[None]:
    """`shown`: what is answered of a host name with path; nothing: 404."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        host = next(line for line in head if line.lower().startswith("host:")).split(":")[1].strip()
        body = shown(host + head[0].split(" ")[1])
        status = "200 OK" if body else "404 Not Found"
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
        )
        writer.close()

    async with await asyncio.start_server(answer, LOOPBACK, port):
        yield


@contextmanager
def _process(command: list[str]) -> Iterator[None]:
    quick = os.environ | {"PEBBLE_VA_NOSLEEP": "1"}
    process = subprocess.Popen(
        command, env=quick, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _port() -> int:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        return int(listener.getsockname()[1])


def _await(port: int) -> None:
    for _ in range(600):
        with socket.socket() as client:
            if client.connect_ex((LOOPBACK, port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError("pebble does not listen.")


def _certify(certificate: Path, key: Path) -> None:
    """For the authority's own server."""
    made, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pebble")])
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(IPv4Address(LOOPBACK))])
    signed = (
        x509.CertificateBuilder(name, name, made.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(made, hashes.SHA256())
    )
    certificate.write_bytes(signed.public_bytes(Encoding.PEM))
    key.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
