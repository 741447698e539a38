"""The streams of a host elsewhere, from the side of who asks.  What is said is in `streams/host.py`."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import msgspec
import websockets
from websockets.asyncio.client import ClientConnection

from skep.model.errors import SkepError, Unavailable
from skep.model.faults import Fault, error_of
from skep.model.host import ExecSpec, LogLine
from skep.model.ids import ContainerId, Digest, DiskId
from skep.model.images import ImageInfo
from skep.streams.host import LARGEST_MESSAGE, LogItem, Said
from skep.streams.sessions import STDIN, Order

CONNECTS_WITHIN = 10.0
SILENT_AT_MOST = 60.0
"""Seconds without a byte after which a stream counts as broken: hosts say something every 15 s."""
_TIMEOUT = httpx.Timeout(SILENT_AT_MOST, connect=CONNECTS_WITHIN)
_IMPORT_TIMEOUT = httpx.Timeout(SILENT_AT_MOST, connect=CONNECTS_WITHIN, read=1800.0)
"""An image or a disk that has arrived is put in its place before the host says so."""
_AHEAD = 64
_BLOCK = 1024 * 1024


class HostStreams:
    """`address` is `host:port`; the TLS context proves who we are and knows whom we expect there."""

    def __init__(self, address: str, tls: ssl.SSLContext) -> None:
        self._address = address
        self._tls = tls
        self.http = httpx.AsyncClient(
            base_url=f"https://{address}", verify=tls, timeout=_TIMEOUT, trust_env=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.aclose()

    async def logs(
        self, container: ContainerId, *, follow: bool, tail: int | None, since: str | None
    ) -> AsyncIterator[LogLine]:
        given = {"follow": "true" if follow else None, "tail": tail, "since": since}
        asked = {name: value for name, value in given.items() if value is not None}
        with self._reachable():
            async with self.http.stream("GET", f"/logs/{container}", params=asked) as response:
                await check(response)
                async for text in response.aiter_lines():
                    if text and (line := _line_of(text)) is not None:
                        yield line

    async def exec(self, container: ContainerId, spec: ExecSpec) -> "RemoteSession":
        with self._reachable():
            connection = await websockets.connect(
                f"wss://{self._address}/exec/{container}",
                ssl=self._tls,
                max_size=LARGEST_MESSAGE,
                open_timeout=CONNECTS_WITHIN,
                proxy=None,
            )
        try:
            with self._reachable():
                await connection.send(msgspec.json.encode(spec).decode())
                _raise_fault(msgspec.json.decode(await connection.recv(), type=Said))
        except BaseException:
            await connection.close()
            raise
        return RemoteSession(connection)

    async def export(self, digest: Digest) -> AsyncIterator[bytes]:
        async for block in self._download(f"/images/{digest}"):
            yield block

    async def receive(self, digest: Digest, layout: AsyncIterator[bytes]) -> ImageInfo:
        said = await self._import(f"/images/{digest}", layout)
        return msgspec.json.decode(said, type=ImageInfo)

    async def export_disk(self, disk: DiskId, since: str) -> AsyncIterator[bytes]:
        """What has changed is searched for before anything is sent."""
        asked = {"since": since} if since else None
        async for block in self._download(f"/disks/{disk}", asked, _IMPORT_TIMEOUT):
            yield block

    async def receive_disk(self, disk: DiskId, stream: AsyncIterator[bytes], onto: str) -> None:
        await self._import(f"/disks/{disk}", stream, {"onto": onto} if onto else None)

    async def upload(self, file: Path) -> None:
        """It becomes one of the host's spool, under its own name."""
        with self._reachable():
            async with self.http.stream("PUT", f"/spool/{file.name}", content=_blocks(file)) as response:
                await check(response)

    async def _import(
        self, path: str, content: AsyncIterator[bytes], asked: Mapping[str, str] | None = None
    ) -> bytes:
        """What the host says once it has taken all of it over."""
        with self._reachable():
            async with self.http.stream(
                "PUT", path, params=asked, content=content, timeout=_IMPORT_TIMEOUT
            ) as response:
                await check(response)
                return await response.aread()

    async def _download(
        self, path: str, asked: Mapping[str, str] | None = None, patience: httpx.Timeout = _TIMEOUT
    ) -> AsyncIterator[bytes]:
        with self._reachable():
            async with self.http.stream("GET", path, params=asked, timeout=patience) as response:
                await check(response)
                async for block in response.aiter_bytes():
                    yield block

    @contextlib.contextmanager
    def _reachable(self) -> Iterator[None]:
        """Raises Unavailable: the host does not answer, or broke off."""
        try:
            yield
        except (httpx.HTTPError, websockets.WebSocketException, OSError) as error:
            raise Unavailable(f"The host at {self._address} does not answer: {error}") from error


class RemoteSession:
    """A process in a container of the host.  Satisfies `ExecSession` of control."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._chunks: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue(_AHEAD)
        self._exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read(), name="exec-reading")

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        while (chunk := await self._chunks.get()) is not None:
            yield chunk
        self._chunks.put_nowait(None)

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), LARGEST_MESSAGE // 2):
            await self._send(bytes((STDIN,)) + data[start : start + LARGEST_MESSAGE // 2])

    async def close_stdin(self) -> None:
        await self._send(msgspec.json.encode(Order(eof=True)).decode())

    async def resize(self, columns: int, rows: int) -> None:
        await self._send(msgspec.json.encode(Order(resize=(columns, rows))).decode())

    async def wait(self) -> int:
        return await asyncio.shield(self._exit)

    async def close(self) -> None:
        self._reading.cancel()
        await self._connection.close()
        if not self._exit.done():
            self._exit.set_exception(Unavailable("The session was closed."))
            self._exit.exception()  # also when nobody waits for it

    async def _send(self, message: bytes | str) -> None:
        """What an ended process no longer wants is dropped."""
        with contextlib.suppress(websockets.ConnectionClosed):
            await self._connection.send(message)

    async def _read(self) -> None:
        end: int | SkepError = Unavailable("The host broke off the session.")
        try:
            async for message in self._connection:
                if isinstance(message, bytes):
                    await self._chunks.put((message[0], message[1:]))
                else:
                    end = _end_of(msgspec.json.decode(message, type=Said))
                    break
        except (websockets.ConnectionClosed, OSError):
            pass
        await self._chunks.put(None)
        if isinstance(end, int):
            self._exit.set_result(end)
        else:
            self._exit.set_exception(end)
            self._exit.exception()  # also when nobody waits for it


async def _blocks(file: Path) -> AsyncIterator[bytes]:
    with file.open("rb") as opened:
        while block := await asyncio.to_thread(opened.read, _BLOCK):
            yield block


async def check(response: httpx.Response) -> None:
    """Raises the error that the host answered with."""
    if response.status_code != httpx.codes.OK:
        body = await response.aread()
        try:
            raise error_of(msgspec.json.decode(body, type=Fault))
        except msgspec.MsgspecError as error:
            raise Unavailable(f"The host answered with status {response.status_code}.") from error


def _line_of(text: str) -> LogLine | None:
    item = msgspec.json.decode(text, type=LogItem)
    if item.fault is not None:
        raise error_of(item.fault)
    return item.line


def _raise_fault(said: Said) -> None:
    if said.fault is not None:
        raise error_of(said.fault)


def _end_of(said: Said) -> int | SkepError:
    if said.fault is not None:
        return error_of(said.fault)
    return 0 if said.exit is None else said.exit
