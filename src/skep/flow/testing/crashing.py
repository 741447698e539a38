"""A database that dies, or does something else, at a chosen point."""

import asyncio
from collections.abc import Awaitable, Callable

from skep.flow.storage.database import Database
from skep.flow.testing.virtual_time import waits_for_driver


class CrashingDatabase(Database):
    """A database that dies at a chosen point: 2n before its n-th commit, 2n + 1 right after it (n from 0).

    From then on nothing is committed and nobody is answered; `crashed` is set.
    """

    crash_at: int | None = None
    points: int = 0
    """How many points have been passed."""
    at_point: Callable[[int], None] | None = None
    """Called with the number of each point that is passed."""
    crashed: asyncio.Event

    def arm(self, point: int | None) -> asyncio.Event:
        """Die at the point, counted from now; None: never."""
        self.crash_at, self.points, self.crashed = point, 0, asyncio.Event()
        return self.crashed

    def die(self) -> None:
        """Now: the next point is never passed."""
        self.crash_at = self.points
        self.crashed.set()

    async def abandon(self) -> None:
        """As `Database.abandon`, but a statement that is under way ends first.

        SQLite keeps the lock of an interrupted one until its cursor is collected as garbage.
        """
        self.crash_at = self.points
        while self._writer is not None and waits_for_driver(self._writer):  # noqa: ASYNC110  (there is no event)
            await asyncio.sleep(0.001)
        await super().abandon()

    async def _commit(self, commit: Callable[[], Awaitable[None]]) -> None:
        await self._pass()
        await commit()
        await self._pass()

    async def _pass(self) -> None:
        point, self.points = self.points, self.points + 1
        if point == self.crash_at:
            self.crashed.set()
            await asyncio.Event().wait()
        if self.at_point is not None:
            self.at_point(point)


class BrokenAtCommit(Database):
    """A database whose connection breaks after so many commits more are done, before anybody hears of it."""

    breaks = 0

    async def _commit(self, commit: Callable[[], Awaitable[None]]) -> None:
        await commit()
        self.breaks -= 1
        if self.breaks == 0:
            raise ConnectionResetError("the connection broke")
