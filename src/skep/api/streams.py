"""Streams that a client follows: server-sent events and lines of JSON.

A pump task reads ahead a little, so that many small items travel in few packets; a slow client stops the
pump, and a client that has gone away cancels it, which ends the generator it reads from.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import msgspec
from litestar.openapi import ResponseSpec
from litestar.response import Stream

from skep.api.errors import problem_of

T = TypeVar("T")
Encode = Callable[[T], bytes]

KEEP_ALIVE = 15.0
"""Seconds after which a silent event stream sends a comment, so that proxies leave it open."""

_AHEAD = 256
EVENT_STREAM = "text/event-stream"
NDJSON = "application/x-ndjson"


def event_stream(
    items: AsyncIterator[T],
    *,
    event: Callable[[T], str] | None = None,
    identity: Callable[[T], object] | None = None,
) -> Stream:
    """Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

    `data` is the item as JSON, `id` what a client sends back as Last-Event-ID.  An error in the middle is
    an event `error` with the problem document, the regular end an event `end`.
    """

    def encode(item: T) -> bytes:
        head = f"id: {identity(item)}\n" if identity else ""
        head += f"event: {event(item)}\n" if event else ""
        return head.encode() + b"data: " + msgspec.json.encode(item) + b"\n\n"

    def fail(error: Exception) -> bytes:
        return b"event: error\ndata: " + msgspec.json.encode(problem_of(error)) + b"\n\n"

    chunks = _chunks(items, encode, fail, keep_alive=b": keep-alive\n\n", end=b"event: end\ndata: {}\n\n")
    return Stream(chunks, media_type=EVENT_STREAM, headers={"Cache-Control": "no-store"})


def json_lines(items: AsyncIterator[T]) -> Stream:
    """One JSON object per line; an error in the middle is a last line `{"error": problem}`."""

    def encode(item: T) -> bytes:
        return msgspec.json.encode(item) + b"\n"

    def fail(error: Exception) -> bytes:
        return msgspec.json.encode({"error": problem_of(error)}) + b"\n"

    return Stream(_chunks(items, encode, fail), media_type=NDJSON, headers={"Cache-Control": "no-store"})


def answers(item: type, media_type: str) -> dict[int, ResponseSpec]:
    """For a handler that answers a stream of such items: what OpenAPI says about it."""
    return {200: ResponseSpec(item, media_type=media_type, description="A stream of these.")}


async def _chunks(
    items: AsyncIterator[T],
    encode: Encode[T],
    fail: Callable[[Exception], bytes],
    *,
    keep_alive: bytes = b"",
    end: bytes = b"",
) -> AsyncIterator[bytes]:
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(_AHEAD)
    pump = asyncio.create_task(_pump(items, encode, fail, end, queue))
    try:
        if keep_alive:
            yield b": skep\n\n"  # sends the headers before the first item exists
        while True:
            try:
                async with asyncio.timeout(KEEP_ALIVE if keep_alive else None):
                    first = await queue.get()
            except TimeoutError:
                yield keep_alive
                continue
            chunk, ended = _drain(first, queue)
            if chunk:
                yield chunk
            if ended:
                return
    finally:
        pump.cancel()


def _drain(first: bytes | None, queue: asyncio.Queue[bytes | None]) -> tuple[bytes, bool]:
    """Everything that waits, and whether the end was among it."""
    parts: list[bytes] = []
    item = first
    while item is not None:
        parts.append(item)
        if queue.empty():
            return b"".join(parts), False
        item = queue.get_nowait()
    return b"".join(parts), True


async def _pump(
    items: AsyncIterator[T],
    encode: Encode[T],
    fail: Callable[[Exception], bytes],
    end: bytes,
    queue: asyncio.Queue[bytes | None],
) -> None:
    try:
        async for item in items:
            await queue.put(encode(item))
        if end:
            await queue.put(end)
    except Exception as error:
        await queue.put(fail(error))
    finally:
        await close(items)
    await queue.put(None)


async def close(items: AsyncIterator[T]) -> None:
    """End a generator now instead of whenever it is collected."""
    aclose = getattr(items, "aclose", None)
    if aclose is not None:
        await aclose()
