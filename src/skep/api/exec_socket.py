"""A command in a running replica, over a WebSocket.

Framing (all JSON in text messages, all bytes in binary ones):

- client first: text, an ExecSpec: `{"args": ["sh"], "tty": true, "stdin": true, "columns": 80, "rows": 24}`
- client then: binary, byte 0 and data for stdin; text `{"resize": [columns, rows]}`; text `{"eof": true}`
- server: binary, byte 1 (stdout) or 2 (stderr) and data; with a TTY everything is stdout
- server last: text `{"exit": code}` (128 + signal when killed) or `{"error": problem}`, then it closes

A client that goes away ends the process.
"""

from functools import partial
from typing import Any

import msgspec
from litestar import WebSocket, websocket
from litestar.exceptions import WebSocketDisconnect
from litestar.params import FromPath

from skep.api.asking import Caller, Control
from skep.api.errors import problem_of
from skep.streams.sessions import Gone, bridge
from skep.streams.sockets import Socket, read_spec, receive


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
        spec = await read_spec(socket)
        session = await control.replicas.exec(caller, app, replica, spec)
        try:
            code = await bridge(session, partial(receive, socket), socket.send_bytes)
        finally:
            await session.close()
        await _finish(socket, {"exit": code})
    except (WebSocketDisconnect, Gone):
        return
    except Exception as error:
        await _finish(socket, {"error": problem_of(error)})


async def _finish(socket: Socket, message: object) -> None:
    try:
        await socket.send_text(msgspec.json.encode(message).decode())
        await socket.close(1000)
    except Exception:  # noqa: S110 - the client is gone: nobody is left to tell
        pass
