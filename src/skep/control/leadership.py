"""Of several processes one leads: it alone compares desired with actual, lest they do the same twice.

A leader that hangs longer than its lease is replaced.  It may not know at once, so what it tells hosts
carries the epoch of its lease, and hosts refuse what is older than what they have heard.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from skep.flow import CommitFailed, Database
from skep.flow.storage.shared import transact
from skep.store import leases

LEASE = 8.0
"""Seconds without a sign of life after which another process leads."""

log = structlog.get_logger("skep.leadership")


class Leadership:
    """Who leads in the matter called `name`.  `holder` is unique to this process and its life."""

    def __init__(self, database: Database, name: str, holder: str, lease: float = LEASE) -> None:
        self._database = database
        self._name = name
        self._holder = holder
        self._lease = lease

    async def run(self, work: Callable[[int], Awaitable[None]]) -> None:
        """Whenever this process leads, have `work(epoch)` done until it no longer does.  For ever."""
        try:
            while True:
                epoch = None
                with suppress(CommitFailed):
                    epoch = await self._take()
                if epoch is None:
                    await asyncio.sleep(self._lease / 4)
                else:
                    await self._lead(epoch, work)
        finally:
            with suppress(CommitFailed):
                await transact(self._database, lambda tx: leases.give_back(tx, self._name, self._holder))

    async def _lead(self, epoch: int, work: Callable[[int], Awaitable[None]]) -> None:
        log.info("leadership.begun", of=self._name, epoch=epoch)
        working = asyncio.ensure_future(work(epoch))
        try:
            await self._keep(epoch, working)
        finally:
            working.cancel()
            with suppress(asyncio.CancelledError):
                await working
            log.info("leadership.ended", of=self._name, epoch=epoch)

    async def _keep(self, epoch: int, working: "asyncio.Future[None]") -> None:
        """Prolong the lease until it is lost, or may be, since the database did not answer for so long."""
        clock = asyncio.get_running_loop().time
        end = clock() + self._lease
        while clock() < end and not working.done():
            await asyncio.wait([working], timeout=self._lease / 4)
            asked = clock()
            try:
                if await self._take() != epoch:
                    return
                end = asked + self._lease
            except CommitFailed as error:
                log.warning("leadership.unsure", of=self._name, error=str(error))

    async def _take(self) -> int | None:
        return await transact(
            self._database, lambda tx: leases.take(tx, self._name, self._holder, self._lease)
        )
