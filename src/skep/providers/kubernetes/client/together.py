"""Many who want the same work done share it, as in a group commit."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

_ENDS = 1.0
"""Seconds that work under way has until whoever leaves goes without it."""
T = TypeVar("T")


class Together(Generic[T]):
    """Calls that come while the work is under way are one call of it, next."""

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self._turn = asyncio.Lock()
        self._next: asyncio.Task[T] | None = None
        self._under_way: set[asyncio.Task[T]] = set()

    async def done(self) -> T:
        """What the work answers that began after this call.  Raises what it raises."""
        return await asyncio.shield(self.begin())

    def begin(self) -> asyncio.Task[T]:
        """As `done`, for those who do not wait: the task must be looked after."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._begin())
            self._under_way.add(self._next)
            self._next.add_done_callback(self._under_way.discard)
        return self._next

    async def rest(self) -> None:
        """Return once nothing of it is under way; what takes long is not waited for."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=_ENDS)

    async def _begin(self) -> T:
        async with self._turn:
            self._next = None
            return await self._work()
