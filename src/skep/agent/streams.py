"""Streams of a host, over HTTPS: logs, and commands in containers.

Only who proves to be of control comes in: the caller's TLS context sees to that.  What is said is in
`streams/host.py`.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any

import msgspec
import structlog
import uvicorn
from litestar import Litestar, Request, Response, WebSocket, get, websocket
from litestar.datastructures import State
from litestar.exceptions import WebSocketDisconnect
from litestar.params import FromPath, FromQuery
from litestar.response import Stream

from skep.control.ports import Host
from skep.model.errors import InvalidInput, SkepError
from skep.model.faults import fault_of
from skep.model.host import ExecSpec, LogLine
from skep.model.ids import ContainerId
from skep.streams.host import LARGEST_MESSAGE, LogItem, Said
from skep.streams.pump import chunks
from skep.streams.sessions import Gone, bridge

FIRST_MESSAGE_WITHIN = 10.0
_FAILED = 500
"""The status of every error: what it was is in the body."""

Socket = WebSocket[Any, Any, Any]
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
        session = await host.engine.exec(ContainerId(container), await _read_spec(socket))
        try:
            await _say(socket, Said(started=True))
            code = await bridge(session, partial(_receive, socket), socket.send_bytes)
        finally:
            await session.close()
        await _say(socket, Said(exit=code), last=True)
    except (WebSocketDisconnect, Gone):
        return
    except Exception as error:
        _log_defect(error)
        await _say(socket, Said(fault=fault_of(error)), last=True)


def build_streams(host: Host) -> Litestar:
    """The ASGI application; `host` is the one it runs on."""
    return Litestar(
        [logs, run_command],
        state=State({"host": host}),
        openapi_config=None,
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


def _encode_line(line: LogLine) -> bytes:
    return msgspec.json.encode(LogItem(line=line)) + b"\n"


def _encode_fault(error: Exception) -> bytes:
    _log_defect(error)
    return msgspec.json.encode(LogItem(fault=fault_of(error))) + b"\n"


async def _read_spec(socket: Socket) -> ExecSpec:
    try:
        async with asyncio.timeout(FIRST_MESSAGE_WITHIN):
            return msgspec.json.decode(await socket.receive_text(), type=ExecSpec)
    except TimeoutError as error:
        raise InvalidInput(f"No ExecSpec came within {FIRST_MESSAGE_WITHIN:.0f} seconds.") from error
    except msgspec.MsgspecError as error:
        raise InvalidInput(f"The first message must be an ExecSpec: {error}") from error


async def _receive(socket: Socket) -> bytes | str | None:
    message: Mapping[str, Any] = await socket.receive()
    if message["type"] == "websocket.disconnect":
        return None
    text: str | None = message.get("text")
    data: bytes | None = message.get("bytes")
    return text or data or b""


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
