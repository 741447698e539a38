"""Items as chunks for a client that may be slow or go away.  Used by the API and by the agents.

A pump task reads ahead a little, so that many small items travel in few packets; a slow client stops the
pump, and a client that has gone away cancels it, which ends the generator it reads from.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

T = TypeVar("T")
Encode = Callable[[T], bytes]

KEEP_ALIVE = 15.0
"""Seconds after which a silent stream sends what its client ignores, so that proxies leave it open."""

_AHEAD = 256


async def chunks(
    items: AsyncIterator[T],
    encode: Encode[T],
    fail: Callable[[Exception], bytes],
    *,
    begin: bytes = b"",
    keep_alive: bytes = b"",
    end: bytes = b"",
) -> AsyncIterator[bytes]:
    """`begin` is sent at once, `fail(error)` or else `end` last, `keep_alive` whenever nothing comes."""
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(_AHEAD)
    pump = asyncio.create_task(_pump(items, encode, fail, end, queue))
    try:
        if begin:
            yield begin  # sends the headers before the first item exists
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


async def close(items: AsyncIterator[T]) -> None:
    """End a generator now instead of whenever it is collected."""
    aclose = getattr(items, "aclose", None)
    if aclose is not None:
        await aclose()


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
