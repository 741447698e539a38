"""A lock that many may share or one hold alone.

Transfers share it, pruning holds it alone: pruning waits until nothing is on its way, and never makes a
transfer wait for another one.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class SharedLock:
    """Sharers come first; who wants it alone waits for a moment without them."""

    def __init__(self) -> None:
        self._sharers = 0
        self._alone = False
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        async with self._changed:
            await self._changed.wait_for(lambda: not self._alone)
            self._sharers += 1
        try:
            yield
        finally:
            self._sharers -= 1
            await self._notify()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        async with self._changed:
            await self._changed.wait_for(lambda: not self._alone and not self._sharers)
            self._alone = True
        try:
            yield
        finally:
            self._alone = False
            await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
