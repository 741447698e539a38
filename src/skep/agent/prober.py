"""Probes one running container for as long as it runs.  The decisions are in `probes.py`."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from skep.agent.probes import ProbeResult, ProbeState, judge, wait_before_next
from skep.model.ids import Seconds
from skep.model.spec import HealthCheck

Run = Callable[[float], Awaitable[tuple[int | None, str]]]
"""Run the check with this timeout in seconds: exit code (None: timed out) and output."""


class Prober:
    """`changed` is told every state whose health differs from the one before.

    `spawn` makes a task of it that somebody awaits: when stopped, it has a process to end.
    """

    def __init__(
        self,
        check: HealthCheck,
        run: Run,
        changed: Callable[[], Awaitable[None]],
        started_boot: float,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[Any]] = asyncio.create_task,
    ) -> None:
        self.state = ProbeState()
        self._check = check
        self._run = run
        self._changed = changed
        self._started = started_boot
        self._task = spawn(self._forever())

    def stop(self) -> None:
        self._task.cancel()

    async def _forever(self) -> None:
        while True:
            await asyncio.sleep(wait_before_next(self._check, self.state, self._running_for()))
            began = self._running_for()
            code, output = await self._run(self._check.timeout)
            before = self.state.health
            self.state = judge(self._check, self.state, ProbeResult(code=code, output=output, began=began))
            if self.state.health is not before:
                await self._changed()

    def _running_for(self) -> Seconds:
        return Seconds(time.clock_gettime(time.CLOCK_BOOTTIME) - self._started)
