"""Names to the journal what has changed, and adds to the history."""

import asyncio
from collections.abc import Callable

from skep.flow.execution.active import ActiveRun
from skep.flow.storage.journal import Journal


class Ledger:
    """What a worker writes: rows as they are now, events as they happen.  `clock`: seconds since 1970.

    A worker that was fenced goes on with another journal.
    """

    def __init__(self, journal: Journal, clock: Callable[[], float]) -> None:
        self.journal = journal
        self.now = clock

    def run(self, run: ActiveRun) -> None:
        if not run.abandoned:
            self.journal.save_run(run.row)

    def step(self, run: ActiveRun, index: int) -> None:
        if not run.abandoned:
            self.journal.save_step(run.row.id, run.execution.name(index), run.execution.row(index))

    def event(self, run: ActiveRun, kind: str, step: str = "", message: str = "") -> None:
        if run.abandoned:
            return
        run.sequence += 1
        self.journal.add_event(run.row.id, run.sequence, step, kind, self.now(), message)
        if run.followers:
            self.journal.afterwards(run.wake)

    def later(
        self, delay: float, run: ActiveRun, index: int, action: Callable[[ActiveRun, int], None]
    ) -> None:
        """Do it after so many seconds, unless the step is stopped before."""
        run.timers[index] = asyncio.get_running_loop().call_later(max(0.0, delay), action, run, index)
