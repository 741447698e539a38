"""A command in a running replica, over a WebSocket.

Framing (all JSON in text messages, all bytes in binary ones):

- client first: text, an ExecSpec: `{"args": ["sh"], "tty": true, "stdin": true, "columns": 80, "rows": 24}`
- client then: binary, byte 0 and data for stdin; text `{"resize": [columns, rows]}`; text `{"eof": true}`
- server: binary, byte 1 (stdout) or 2 (stderr) and data; with a TTY everything is stdout
- server last: text `{"exit": code}` (128 + signal when killed) or `{"error": problem}`, then it closes

A client that goes away ends the process.
"""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec
from litestar import WebSocket, websocket
from litestar.exceptions import WebSocketDisconnect
from litestar.params import FromPath

from skep.api.asking import Caller, Control
from skep.api.errors import problem_of
from skep.model.errors import InvalidInput
from skep.model.host import ExecSpec
from skep.streams.sessions import Gone, bridge

Socket = WebSocket[Any, Any, Any]

FIRST_MESSAGE_WITHIN = 10.0


@websocket("/apps/{app:str}/replicas/{replica:str}/exec")
async def exec_in_replica(
    socket: WebSocket[Any, Any, Any],
    control: Control,
    caller: Caller,
    app: FromPath[str],
    replica: FromPath[str],
) -> None:
    await socket.accept()
    try:
        spec = await _read_spec(socket)
        session = await control.replicas.exec(caller, app, replica, spec)
        try:
            code = await bridge(session, partial(_receive, socket), socket.send_bytes)
        finally:
            await session.close()
        await _finish(socket, {"exit": code})
    except (WebSocketDisconnect, Gone):
        return
    except Exception as error:
        await _finish(socket, {"error": problem_of(error)})


async def _read_spec(socket: Socket) -> ExecSpec:
    try:
        async with asyncio.timeout(FIRST_MESSAGE_WITHIN):
            text = await socket.receive_text()
        return msgspec.json.decode(text, type=ExecSpec)
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


async def _finish(socket: Socket, message: object) -> None:
    try:
        await socket.send_text(msgspec.json.encode(message).decode())
        await socket.close(1000)
    except Exception:  # noqa: S110 - the client is gone: nobody is left to tell
        pass
