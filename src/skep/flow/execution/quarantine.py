"""Runs whose workers died again and again: they go one at a time, so that the one to blame is found.

A run that was in flight when a worker died is counted (`crashes`) until a step of it succeeds again.  From
`SUSPECT` on it is a suspect: suspects go one after another, and which one goes is durable before it does.
If the worker dies once more, it is that one: from `GUILTY` on it waits for its operator and harms nobody.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from skep.flow.execution.active import ActiveRun
from skep.flow.runs import Reason, RunState
from skep.flow.steps import RunId

SUSPECT = 2
GUILTY = 3
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
                if run.row.state.ended:
                    continue
                await self._name(run.id)
                self._begin(run)
                await self._settled(run)
            await self._name(None)
        finally:
            self._alone = self._task = None

    async def _settled(self, run: ActiveRun) -> None:
        """It has ended, got on, waits for somebody, or has gone well for long enough."""
        deadline = asyncio.get_running_loop().time() + PROBATION
        idle = (RunState.WAITING, RunState.NEEDS_OPERATOR, RunState.PAUSED)
        while run.row.crashes and not run.row.state.ended and run.row.state not in idle:
            if asyncio.get_running_loop().time() > deadline:
                return
            await asyncio.sleep(0.05)
