"""Following a run until it has ended, whether this engine carries it out or another of the same database."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress

from skep.flow.execution.active import ActiveRun
from skep.flow.execution.ledger import Ledger
from skep.flow.execution.roster import Roster
from skep.flow.runs import RunEvent, RunRecord
from skep.flow.steps import RunId

GATHERING = 0.02
"""Seconds a follower lets news gather: a busy run has hundreds of events a second, each look is a query."""
LOOK = 0.5
"""Seconds between two looks at a run that goes on in another process."""


class Following:
    """`find` and `history` read what is durable; `shared`: others carry out runs, too."""

    def __init__(
        self,
        ledger: Ledger,
        roster: Roster,
        *,
        find: Callable[[RunId], Awaitable[RunRecord]],
        history: Callable[[RunId, int], Awaitable[Sequence[RunEvent]]],
        shared: bool,
    ) -> None:
        self._ledger = ledger
        self._roster = roster
        self._find = find
        self._history = history
        self._shared = shared

    async def end(self, run: RunId) -> RunRecord:
        """Return once it has ended; if nobody carries it out, at once."""
        while True:
            active = self._roster.runs.get(run)
            if active is not None:
                await active.ended.wait()
                if active.row.state.ended:
                    return active.record()
            record = await self._find(run)
            if record.state.ended or not self._shared:
                return record
            await asyncio.sleep(LOOK)

    async def events(self, run: RunId, after: int) -> AsyncIterator[RunEvent]:
        """The whole history, then what happens, until the run has ended; none is lost or given twice."""
        await self._find(run)
        news, active = asyncio.Event(), self._roster.runs.get(run)
        if active is not None:
            active.followers.add(news)
            self._ledger.journal.afterwards(news.set)  # for what was named before and is not durable yet
        try:
            while True:
                over = await self._is_over(run, active)
                news.clear()
                for event in await self._history(run, after):
                    after = event.sequence
                    yield event
                if over:
                    return
                with suppress(TimeoutError):
                    async with asyncio.timeout(None if active is not None else LOOK):
                        await news.wait()
                await _gather(active)
        finally:
            if active is not None:
                active.followers.discard(news)

    async def _is_over(self, run: RunId, active: ActiveRun | None) -> bool:
        if active is not None:
            return active.ended.is_set()
        return not self._shared or (await self._find(run)).state.ended


async def _gather(active: ActiveRun | None) -> None:
    """Wait for more news, unless there will be none: whoever follows a run waits for its end above all."""
    if active is None:
        await asyncio.sleep(GATHERING)
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(GATHERING):
            await active.ended.wait()
