"""Bad weather between skep and a real cluster: a proxy that refuses, is slow, and cuts what goes through it.

skep speaks plain HTTP to it; it speaks TLS to the API server, as the administrator.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from lightkube.config.kubeconfig import SingleConfig
from tests.cluster.kubernetes import client
from tests.cluster.kubernetes.cluster import Cluster as ACluster

from skep.providers.kubernetes.client import access


def _answer(status: str, *headers: str) -> bytes:
    """Without a document, as proxies and load balancers say it."""
    return "\r\n".join(
        [f"HTTP/1.1 {status}", "Content-Length: 0", "Connection: close", *headers, "", ""]
    ).encode()


_BUSY = _answer("429 Too Many Requests", "Retry-After: 1")
_UNKNOWN = _answer("401 Unauthorized")


class Weather:
    """Changed while it blows.  `busy`: one of so many requests is let through, others are told to wait."""

    def __init__(self, address: str, port: int, way: ssl.SSLContext) -> None:
        self._address, self._port, self._way = address, port, way
        self.busy = 0
        self.slow = 0.0
        self.down = False
        self.unknown = False
        self.asked = 0
        self.refused = 0
        self.listens = 0
        self._open: set[asyncio.Task[None]] = set()

    def config(self) -> SingleConfig:
        document = {
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.listens}"}}],
            "users": [{"name": "u", "user": {"token": "of-no-use"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        return access.read(json.dumps(document))

    def clear(self) -> None:
        self.busy, self.slow, self.down, self.unknown = 0, 0.0, False, False

    def cut(self) -> None:
        """Whatever is open, watches too, as when a server dies."""
        for task in self._open:
            task.cancel()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._talk(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        with suppress(asyncio.CancelledError, OSError, asyncio.IncompleteReadError):
            await task
        with suppress(OSError):
            writer.transport.abort() if task.cancelled() else writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.down:
            return
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        if self.busy and self.asked % self.busy:
            self.refused += 1
            writer.write(_BUSY)
            return
        if self.unknown:
            writer.write(_UNKNOWN)
            return
        await asyncio.sleep(self.slow)
        onward, back = await asyncio.open_connection(self._address, self._port, ssl=self._way)
        try:
            back.write(_once(head))
            async with asyncio.TaskGroup() as both:
                coming = both.create_task(_pipe(reader, back))
                await _pipe(onward, writer)
                coming.cancel()
        finally:
            back.transport.abort()


def _once(head: bytes) -> bytes:
    """A connection carries one request; who asks is known by the certificate."""
    lines = head[:-4].split(b"\r\n")
    upgrades = any(line.lower().startswith(b"upgrade:") for line in lines)
    dropped = (b"authorization:",) if upgrades else (b"authorization:", b"connection:")
    kept = [line for line in lines if not line.lower().startswith(dropped)]
    return b"\r\n".join([*kept, *([] if upgrades else [b"Connection: close"]), b"", b""])


async def _pipe(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while block := await source.read(65_536):
        target.write(block)
        await target.drain()


@asynccontextmanager
async def weather(world: ACluster) -> AsyncIterator[Weather]:
    """Fine at first."""
    url = urlsplit(world.layout.api)
    assert url.hostname is not None
    assert url.port is not None
    found = Weather(url.hostname, url.port, client.tls(world.layout))
    server = await asyncio.start_server(found.talk, "127.0.0.1", 0)
    found.listens = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        found.cut()
