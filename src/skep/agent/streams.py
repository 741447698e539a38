"""Streams of a host, over HTTPS: logs, commands in containers, images, disks, uploads.

Only who proves to be of control comes in: the caller's TLS context sees to that.  What is said is in
`streams/host.py`.
"""

import asyncio
import contextlib
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import structlog
import uvicorn
from litestar import Litestar, Request, Response, WebSocket, get, put, websocket
from litestar.datastructures import State
from litestar.exceptions import WebSocketDisconnect
from litestar.params import FromPath, FromQuery
from litestar.response import Stream

from skep.control.ports import Host
from skep.model.errors import SkepError
from skep.model.faults import fault_of
from skep.model.host import LogLine
from skep.model.ids import ContainerId, Digest, DiskId
from skep.streams.host import LARGEST_MESSAGE, LogItem, Said
from skep.streams.pump import chunks, close
from skep.streams.sessions import Gone, bridge
from skep.streams.sockets import Socket, read_spec, receive

_FAILED = 500
"""The status of every error: what it was is in the body."""

log = structlog.get_logger(__name__)


@get("/logs/{container:str}")
async def logs(
    state: State,
    container: FromPath[str],
    follow: FromQuery[bool] = False,
    tail: FromQuery[int | None] = None,
    since: FromQuery[str | None] = None,
) -> Stream:
    host: Host = state.host
    lines = host.engine.logs(ContainerId(container), follow=follow, tail=tail, since=since)
    return Stream(chunks(lines, _encode_line, _encode_fault, keep_alive=b"\n"))


@websocket("/exec/{container:str}")
async def run_command(socket: WebSocket[Any, Any, Any], state: State, container: FromPath[str]) -> None:
    """A client that goes away ends the process."""
    await socket.accept()
    host: Host = state.host
    try:
        session = await host.engine.exec(ContainerId(container), await read_spec(socket))
        try:
            await _say(socket, Said(started=True))
            code = await bridge(session, partial(receive, socket), socket.send_bytes)
        finally:
            await session.close()
        await _say(socket, Said(exit=code), last=True)
    except (WebSocketDisconnect, Gone):
        return
    except Exception as error:
        _log_defect(error)
        await _say(socket, Said(fault=fault_of(error)), last=True)


@get("/images/{digest:str}")
async def export_image(state: State, digest: FromPath[str]) -> Stream:
    host: Host = state.host
    await host.images.info(Digest(digest))  # an error that comes later can only break the stream off
    return Stream(host.images.export(Digest(digest)))


@put("/images/{digest:str}", request_max_body_size=None)
async def receive_image(
    request: Request[Any, Any, Any], state: State, digest: FromPath[str]
) -> Response[bytes]:
    host: Host = state.host
    info = await host.images.receive(Digest(digest), request.stream())
    return Response(msgspec.json.encode(info))


@get("/disks/{disk:str}")
async def export_disk(state: State, disk: FromPath[str], since: FromQuery[str] = "") -> Stream:
    """Its first block is there before the answer begins: so errors are answered as such."""
    host: Host = state.host
    content = host.disks.export(DiskId(disk), since)
    return Stream(_after(await anext(content), content))


@put("/disks/{disk:str}", request_max_body_size=None)
async def receive_disk(
    request: Request[Any, Any, Any], state: State, disk: FromPath[str], onto: FromQuery[str] = ""
) -> Response[bytes]:
    """Whoever is refused is heard to the end: who still sends would not hear why."""
    host: Host = state.host
    content = request.stream()
    try:
        await host.disks.receive(DiskId(disk), content, onto)
    except SkepError:
        async for _ in content:
            pass
        raise
    return Response(b"")


@put("/spool/{name:str}", request_max_body_size=None)
async def take_upload(request: Request[Any, Any, Any], state: State, name: FromPath[str]) -> Response[bytes]:
    """A file that arrived whole gets its name; of one that broke off nothing stays."""
    host: Host = state.host
    with tempfile.TemporaryDirectory(dir=state.scratch) as folder:
        file = Path(folder) / name
        with file.open("xb") as opened:
            async for block in request.stream():
                await asyncio.to_thread(opened.write, block)
        await host.spool.take(file)
    return Response(b"")


def build_streams(host: Host, scratch: Path) -> Litestar:
    """The ASGI application; `host` is the one it runs on, `scratch` a folder where its spool is."""
    return Litestar(
        [logs, run_command, export_image, receive_image, export_disk, receive_disk, take_upload],
        state=State({"host": host, "scratch": scratch}),
        openapi_config=None,
        logging_config=None,
        exception_handlers={Exception: _answer_fault},
        request_max_body_size=None,
    )


@contextlib.asynccontextmanager
async def served_streams(app: Litestar, listener: socket.socket, tls: ssl.SSLContext) -> AsyncIterator[None]:
    """Serve on the listener while entered."""
    config = uvicorn.Config(
        app,
        http="h11",
        ws="websockets-sansio",
        ws_max_size=LARGEST_MESSAGE,
        ssl_context_factory=lambda _config, _default: tls,
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    listener.listen()
    serving = asyncio.create_task(server.serve([listener]), name="host-streams")
    try:
        yield
    finally:
        server.should_exit = True
        await serving


async def _after(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        yield first
        async for block in rest:
            yield block
    finally:
        await close(rest)


def _encode_line(line: LogLine) -> bytes:
    return msgspec.json.encode(LogItem(line=line)) + b"\n"


def _encode_fault(error: Exception) -> bytes:
    _log_defect(error)
    return msgspec.json.encode(LogItem(fault=fault_of(error))) + b"\n"


async def _say(socket: Socket, said: Said, *, last: bool = False) -> None:
    with contextlib.suppress(Exception) if last else contextlib.nullcontext():  # nobody is left to tell
        await socket.send_text(msgspec.json.encode(said).decode())
        if last:
            await socket.close(1000)


def _answer_fault(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    _log_defect(error)
    return Response(msgspec.json.encode(fault_of(error), enc_hook=str), status_code=_FAILED)


def _log_defect(error: Exception) -> None:
    if not isinstance(error, SkepError):
        log.error("stream.failed", exc_info=error)
