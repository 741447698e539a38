"""Many who want the same work done share it, as in a group commit."""

import asyncio
from collections.abc import Awaitable, Callable


class Together:
    """Calls that come while the work is under way are one call of it, next."""

    def __init__(self, work: Callable[[], Awaitable[None]]) -> None:
        self._work = work
        self._turn = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None

    async def done(self) -> None:
        """Return once the work was done that began after this call.  Raises what it raises."""
        await asyncio.shield(self.begin())

    def begin(self) -> asyncio.Task[None]:
        """As `done`, for those who do not wait: the task must be looked after."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._begin())
        return self._next

    async def _begin(self) -> None:
        async with self._turn:
            self._next = None
            await self._work()
