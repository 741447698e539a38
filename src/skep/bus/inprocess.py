"""Events within one process: hints, not truth.  A subscriber that cannot keep up loses the oldest."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

T = TypeVar("T")

WAITING = 1000
"""Events kept for one slow subscriber."""


class InProcessBus(Generic[T]):
    """Routing keys are dotted words; a subscription names the words they begin with."""

    def __init__(self) -> None:
        self._queues: dict[asyncio.Queue[T], tuple[str, ...]] = {}

    def publish(self, key: str, message: T) -> None:
        """Never waits, never fails."""
        words = tuple(key.split("."))
        for queue, prefix in self._queues.items():
            if words[: len(prefix)] == prefix:
                if queue.full():
                    queue.get_nowait()
                queue.put_nowait(message)

    @asynccontextmanager
    async def subscribe(self, prefix: str) -> AsyncIterator[AsyncIterator[T]]:
        """Messages from now on whose key begins with the words of `prefix`."""
        queue: asyncio.Queue[T] = asyncio.Queue(WAITING)
        self._queues[queue] = tuple(prefix.split("."))
        try:
            yield _drain(queue)
        finally:
            del self._queues[queue]


async def _drain(queue: asyncio.Queue[T]) -> AsyncIterator[T]:
    while True:
        yield await queue.get()
