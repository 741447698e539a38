"""The framing of a command in a container, over a WebSocket.  Used by the API and by the agents.

All JSON in text messages, all bytes in binary ones:

- the client: binary, byte 0 and data for stdin; text `{"resize": [columns, rows]}`; text `{"eof": true}`
- the server: binary, byte 1 (stdout) or 2 (stderr) and data; with a TTY everything is stdout
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import msgspec

from skep.model.errors import InvalidInput

STDIN = 0

Receive = Callable[[], Awaitable[bytes | str | None]]
"""The client's next message; None: it went away."""
Send = Callable[[bytes], Awaitable[None]]


class Session(Protocol):
    """Of control's `ExecSession`, what a bridge needs."""

    def output(self) -> AsyncIterator[tuple[int, bytes]]: ...

    async def write(self, data: bytes) -> None: ...

    async def close_stdin(self) -> None: ...

    async def resize(self, columns: int, rows: int) -> None: ...

    async def wait(self) -> int: ...


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A text message of the client."""

    resize: tuple[int, int] | None = None
    eof: bool = False


class Gone(Exception):
    """The client went away before the process ended."""


async def bridge(session: Session, receive: Receive, send: Send) -> int:
    """Carry bytes both ways until the process ends; answer its exit code.

    Raises:
        Gone: nobody is there any more.  InvalidInput: the client sent something else.
    """
    output = asyncio.create_task(_send_output(session, send))
    incoming = asyncio.create_task(_receive_input(session, receive))
    try:
        await asyncio.wait({output, incoming}, return_when=asyncio.FIRST_COMPLETED)
        if not output.done():
            incoming.result()
        return await output
    finally:
        output.cancel()
        incoming.cancel()


async def _send_output(session: Session, send: Send) -> int:
    async for stream, data in session.output():
        await send(bytes((stream,)) + data)
    return await session.wait()


async def _receive_input(session: Session, receive: Receive) -> None:
    while True:
        message = await receive()
        if message is None:
            raise Gone
        if isinstance(message, str):
            await _obey(session, message)
        elif message and message[0] == STDIN:
            await session.write(message[1:])


async def _obey(session: Session, text: str) -> None:
    try:
        order = msgspec.json.decode(text, type=Order)
    except msgspec.MsgspecError as error:
        raise InvalidInput(f"Not a message of exec: {error}") from error
    if order.resize is not None:
        await session.resize(*order.resize)
    if order.eof:
        await session.close_stdin()
