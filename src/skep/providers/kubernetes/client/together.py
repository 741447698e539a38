"""Many who want the same work done share it, as in a group commit."""

import asyncio
from collections.abc import Awaitable, Callable

_ENDS = 1.0
"""Seconds that work under way has until whoever leaves goes without it."""


class Together:
    """Calls that come while the work is under way are one call of it, next."""

    def __init__(self, work: Callable[[], Awaitable[None]]) -> None:
        self._work = work
        self._turn = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None
        self._under_way: set[asyncio.Task[None]] = set()

    async def done(self) -> None:
        """Return once the work was done that began after this call.  Raises what it raises."""
        await asyncio.shield(self.begin())

    def begin(self) -> asyncio.Task[None]:
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

    async def _begin(self) -> None:
        async with self._turn:
            self._next = None
            await self._work()
