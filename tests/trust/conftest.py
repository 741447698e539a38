"""An authority, and processes of its installation with their identities in directories."""

import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from skep.model.ids import Seconds
from skep.trust.authority import LIFETIME, Authority
from skep.trust.contexts import PeerContext, peer
from skep.trust.identity import Identity, new_key, signing_request
from skep.trust.peers import Role

Joined = Callable[..., Identity]


def enrol(
    authority: Authority,
    directory: Path,
    role: Role,
    name: str,
    *,
    now: float | None = None,
    lifetime: Seconds = LIFETIME,
) -> Identity:
    """A process that has been given a certificate."""
    key = new_key()
    issued = authority.issue(
        signing_request(key),
        role=role,
        name=name,
        now=time.time() if now is None else now,
        addresses=[ip_address("127.0.0.1")],
        lifetime=lifetime,
    )
    return Identity.store(directory, key, issued.certificate, authority.certificate)


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority.make("inst1", time.time())


@pytest.fixture
def joined(authority: Authority, tmp_path: Path) -> Joined:
    """`joined(role, name, …)`: a process of the installation."""

    def join(role: Role, name: str, of: Authority = authority, **kind: object) -> Identity:
        return enrol(of, tmp_path / f"{of.fingerprint[-6:]}-{role}-{name}", role, name, **kind)  # type: ignore[arg-type]

    return join


@asynccontextmanager
async def greeting(context: PeerContext) -> AsyncIterator[int]:
    """A server that tells everybody it lets in who they are; answers its port."""
    import asyncio

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(peer(writer.get_extra_info("ssl_object")).uri.encode())
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def ask(port: int, context: ssl.SSLContext) -> str:
    """What the server says; an error or nothing when it lets us not in."""
    import asyncio

    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        return (await asyncio.wait_for(reader.read(), 5)).decode()
    finally:
        writer.close()
