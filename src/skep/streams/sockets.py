"""The beginning and the input of a command in a container, as they come over a WebSocket."""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
from litestar import WebSocket

from skep.model.errors import InvalidInput
from skep.model.host import ExecSpec

FIRST_MESSAGE_WITHIN = 10.0
"""Seconds that a client has to say what it wants."""

Socket = WebSocket[Any, Any, Any]


async def read_spec(socket: Socket) -> ExecSpec:
    """Raises InvalidInput: what comes first is none, or nothing comes in time."""
    try:
        async with asyncio.timeout(FIRST_MESSAGE_WITHIN):
            text = await socket.receive_text()
        return msgspec.json.decode(text, type=ExecSpec)
    except TimeoutError as error:
        raise InvalidInput(f"No ExecSpec came within {FIRST_MESSAGE_WITHIN:.0f} seconds.") from error
    except msgspec.MsgspecError as error:
        raise InvalidInput(f"The first message must be an ExecSpec: {error}") from error


async def receive(socket: Socket) -> bytes | str | None:
    """The next message; None: the client has gone."""
    message: Mapping[str, Any] = await socket.receive()
    if message["type"] == "websocket.disconnect":
        return None
    text: str | None = message.get("text")
    data: bytes | None = message.get("bytes")
    return text or data or b""
