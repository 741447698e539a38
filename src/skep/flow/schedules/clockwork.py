"""Starts what is due.  A run and the schedule's next due time are one transaction, and the run's key names
the due time: however many processes look, and wherever they die, each due time begins at most one run.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow.engine import FlowEngine
from skep.flow.errors import CommitFailed, FlowFault, UnknownRun, WrongState
from skep.flow.runs import RunRecord, RunState
from skep.flow.schedules import table
from skep.flow.schedules.schedule import Schedule, decide
from skep.flow.steps import RunId
from skep.flow.storage.database import Database

log = structlog.get_logger(__name__)

LONGEST_SLEEP = 30.0
"""Seconds: what other processes change is seen by then, and so is a clock that was set."""
AFTER_FAILURE = 5.0
FAR = 86400.0
"""Seconds by which the clock may be put back without any due time coming twice."""
AT_ONCE = 100
"""Runs that are started together, so that they share commits."""


class _Moved(Exception):
    """The schedule is no longer as it was: somebody else has begun the run, or it was changed."""


class Clockwork:
    """`clock`: seconds since 1970."""

    def __init__(self, database: Database, engine: FlowEngine, clock: Callable[[], float]) -> None:
        self._database = database
        self._engine = engine
        self._clock = clock
        self._news = asyncio.Event()
        self._awaited: set[str] = set()
        """Keys of due times that wait for a run to end."""
        engine.on_end(self._ended)

    def wake(self) -> None:
        """Look again: a schedule has changed."""
        self._news.set()

    async def run(self) -> None:
        """Start what is due until cancelled."""
        while True:
            self._news.clear()
            try:
                pause = await self._look()
            except Exception as error:
                log.warning("flow.schedules_failed", error=str(error))
                pause = AFTER_FAILURE
            with suppress(TimeoutError):  # not wait_for: it swallows a cancellation that meets the news
                async with asyncio.timeout(pause):
                    await self._news.wait()

    async def _look(self) -> float:
        """Serve what is due; answers the seconds until there is something to do again."""
        now = self._clock()
        async with self._database.read() as connection:
            astray = await table.served_after(connection, now + FAR)
            due = await table.due(connection, now)
            busy = await table.busy(connection, due)
        for schedule in astray:
            await self._bring_back(schedule, now)
        self._awaited &= {schedule.key for schedule in due}
        failed = False
        for some in _slices(due):
            served = await asyncio.gather(*(self._serve_safely(schedule, now, busy) for schedule in some))
            failed = failed or not all(served)
        return AFTER_FAILURE if failed else await self._until_next(now)

    async def _until_next(self, now: float) -> float:
        """Also what has become due meanwhile is still to come, as seen from `now`."""
        async with self._database.read() as connection:
            following = await table.next_due(connection, now)
        return LONGEST_SLEEP if following is None else min(LONGEST_SLEEP, max(0.0, following - self._clock()))

    async def _serve_safely(self, schedule: Schedule, now: float, busy: set[str]) -> bool:
        """One that fails does not keep the others from their runs."""
        try:
            await self._serve(schedule, now, busy)
        except Exception as error:
            log.warning("flow.schedule_failed", schedule=schedule.key, error=str(error))
            return False
        return True

    async def _serve(self, schedule: Schedule, now: float, busy: set[str]) -> None:
        expected = schedule.key in self._awaited
        match decide(schedule, now, busy=schedule.last_run in busy, expected=expected):
            case "start":
                await self._start(schedule, now)
            case "wait":
                self._awaited.add(schedule.key)
            case "cancel":
                if not expected:
                    await self._cancel(schedule)
                self._awaited.add(schedule.key)
            case "skip":
                await self._advance(schedule, now, f"run {schedule.last_run} had not ended")
            case "miss":
                await self._advance(schedule, now, "nobody was there")

    async def _start(self, schedule: Schedule, now: float) -> None:
        moved = False

        async def move(connection: AsyncConnection) -> None:
            nonlocal moved
            run = await table.run_of(connection, schedule.tenant, schedule.key)
            following = schedule.following(now)
            if not await table.change(connection, schedule, next=following, last=now, last_run=run, error=""):
                raise _Moved
            moved = True

        try:
            await self._engine.start(
                *(schedule.flow, schedule.input),
                tenant=schedule.tenant,
                labels={"schedule": schedule.name, "due": schedule.due_text},
                key=schedule.key,
                transaction=move,
                priority=schedule.priority,
            )
        except _Moved:
            return
        except CommitFailed:
            raise
        except FlowFault as error:
            await self._advance(schedule, now, str(error))
            return
        if not moved:  # the run of this due time is known already
            await self._advance(schedule, now, "")

    async def _advance(self, schedule: Schedule, now: float, why: str) -> None:
        """Go on to the next due time without a run."""
        if why:
            log.warning("flow.schedule_skipped", schedule=schedule.key, why=why)
            due = datetime.fromtimestamp(schedule.due, UTC)
            why = f"{due:%Y-%m-%d %H:%M} UTC: {why}"
        values = {"next": schedule.following(now), "error": why}
        await self._database.write(lambda connection: table.change(connection, schedule, **values))

    async def _bring_back(self, schedule: Schedule, now: float) -> None:
        """The clock was far ahead when it was served: it would sleep until that time comes."""
        log.warning("flow.schedule_brought_back", schedule=schedule.key)
        values = {"next": schedule.times.after(now), "last": schedule.last and now, "at": now}
        await self._database.write(lambda connection: table.change(connection, schedule, **values))

    async def _cancel(self, schedule: Schedule) -> None:
        """The last run, unless it is being undone already."""
        run = RunId(schedule.last_run)
        with suppress(UnknownRun, WrongState):
            if (await self._engine.get(run)).state is not RunState.UNDOING:
                await self._engine.cancel(run, by=f"schedule {schedule.name}")

    def _ended(self, run: RunRecord) -> None:
        """Another one may wait for its end."""
        if "schedule" in run.labels:
            self.wake()


def _slices(schedules: Sequence[Schedule]) -> Iterator[Sequence[Schedule]]:
    return (schedules[first : first + AT_ONCE] for first in range(0, len(schedules), AT_ONCE))
