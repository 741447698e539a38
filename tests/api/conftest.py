"""A real server on an ephemeral loopback port."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest
from tests.api.fake_control import FakeControl

from skep.api.app import build_app
from skep.api.server import make_server


class Servable(Protocol):
    def as_control(self) -> Any: ...


@asynccontextmanager
async def serving(control: Servable, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serve the API over this control; answers its URL."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = make_server(build_app(control.as_control()), "127.0.0.1", listener.getsockname()[1], tls)
        task = asyncio.create_task(server._serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.005)
        try:
            yield f"{'https' if tls else 'http'}://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


@pytest.fixture
def control(tmp_path: Path) -> FakeControl:
    spool = tmp_path / "spool"
    spool.mkdir()
    return FakeControl(spool)


@pytest.fixture
async def url(control: FakeControl) -> AsyncIterator[str]:
    async with serving(control) as address:
        yield address


@pytest.fixture
async def client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """An admin."""
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": "Bearer admin-secret"}) as one:
        yield one


@pytest.fixture
async def stranger(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Nobody in particular."""
    async with httpx.AsyncClient(base_url=url) as one:
        yield one
