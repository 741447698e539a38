"""Runs whose workers died again and again: they go one at a time, so that the one to blame is found.

A run that was in flight when a worker died is counted (`crashes`) until a step of it succeeds again.  From
`SUSPECT` on it is a suspect: suspects go one after another, and which one goes is durable before it does.
If the worker dies once more, it is that one: from `GUILTY` on it waits for its operator and harms nobody.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

from skep.flow.errors import CommitFailed, Fenced
from skep.flow.execution.active import ActiveRun
from skep.flow.runs import Reason, RunState
from skep.flow.steps import RunId

log = structlog.get_logger(__name__)

SUSPECT = 2
GUILTY = 3
AGAIN = 0.5
"""Seconds until the database is asked again that did not answer."""
PROBATION = 30.0
"""Seconds for which a suspect goes alone if it does not end before."""


class Quarantine:
    """`name(run | None)` records durably who goes alone; `begin(run)` lets it go."""

    def __init__(
        self, name: Callable[[RunId | None], Awaitable[None]], begin: Callable[[ActiveRun], None]
    ) -> None:
        self._name = name
        self._begin = begin
        self._waiting: deque[ActiveRun] = deque()
        self._alone: ActiveRun | None = None
        self._task: asyncio.Task[None] | None = None

    def admit(self, run: ActiveRun) -> None:
        """Let it go now, or when its turn comes."""
        if run.row.crashes < SUSPECT:
            self._begin(run)
            return
        self._waiting.append(run)
        if self._task is None:
            self._task = asyncio.create_task(self._one_by_one(), name="flow-quarantine")

    def why(self, run: ActiveRun) -> Reason | None:
        if run not in self._waiting:
            return None
        alone = self._alone.id if self._alone else ""
        message = (
            f"Its worker died {run.row.crashes} times; such runs go one at a time, and it is run {alone} now."
        )
        return Reason(kind="quarantine", subject=run.id, message=message, holders=(alone,) if alone else ())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _one_by_one(self) -> None:
        try:
            while self._waiting:
                run = self._alone = self._waiting.popleft()
                await self._named(run)
                if not run.row.state.ended and not run.abandoned:
                    self._begin(run)
                    await self._settled(run)
            await self._name(None)
        except Fenced:
            self._waiting.clear()  # others have them all
        except CommitFailed as error:
            log.warning("flow.suspect_stays_named", error=str(error))
        finally:
            self._alone = self._task = None

    async def _named(self, run: ActiveRun) -> None:
        """It is recorded that the run goes alone, or the run is not to go any more."""
        while not run.row.state.ended and not run.abandoned:
            try:
                await self._name(run.id)
                return
            except CommitFailed as error:
                log.warning("flow.database_away", error=str(error))
                await asyncio.sleep(AGAIN)

    async def _settled(self, run: ActiveRun) -> None:
        """It has ended, got on, waits for somebody, or has gone well for long enough."""
        deadline = asyncio.get_running_loop().time() + PROBATION
        idle = (RunState.WAITING, RunState.NEEDS_OPERATOR, RunState.PAUSED)
        while run.row.crashes and not run.abandoned and not run.row.state.ended and run.row.state not in idle:
            if asyncio.get_running_loop().time() > deadline:
                return
            await asyncio.sleep(0.05)
