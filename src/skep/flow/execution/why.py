"""Says exactly what each step of a run waits for."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from skep.flow.execution.active import ActiveRun
from skep.flow.execution.worker import Worker
from skep.flow.runs import Reason, RunState, StepState, StepWait, moment

MOST = 100
"""Steps that are explained of one run: a fan-out may have a thousand times as many, and each takes time."""


class Why:
    """`locks` says what a run that has not begun waits for, `probation` whether it waits to go alone."""

    def __init__(
        self,
        worker: Worker,
        locks: Callable[[ActiveRun], tuple[Reason, ...]],
        probation: Callable[[ActiveRun], Reason | None],
    ) -> None:
        self._worker = worker
        self._locks = locks
        self._probation = probation

    def explain(self, run: ActiveRun, step: str = "") -> list[StepWait]:
        """Nothing if nothing waits: every step that is left runs.  Of one `step` alone if it is named."""
        whole = self._whole(run)
        found = [StepWait(step="", state=run.row.state.value, reasons=whole)] if whole else []
        if run.isolated or run.row.state is RunState.PENDING:
            return found
        one = run.execution.find(step) if step else None
        for index in range(len(run.execution)) if one is None else (one,):
            reasons = tuple(self._step(run, index))
            if reasons:
                row = run.execution.rows[index]
                state = (row.state if row else StepState.PENDING).value
                found.append(StepWait(step=run.name(index), state=state, reasons=reasons))
            if len(found) >= MOST:
                break
        return found

    def _whole(self, run: ActiveRun) -> tuple[Reason, ...]:
        if run.isolated:
            return (Reason(kind="version", subject=run.row.flow, message=run.row.error),)
        if run.row.paused:
            return (Reason(kind="paused", subject=run.id, message="The run is paused; resume it to go on."),)
        waits = self._probation(run)
        if waits is not None:
            return (waits,)
        return self._locks(run) if run.row.state is RunState.PENDING else ()

    def _step(self, run: ActiveRun, index: int) -> Iterator[Reason]:
        execution, row = run.execution, run.execution.rows[index]
        name = run.name(index)
        if index in run.stuck:
            message = f"{row.message if row else ''}: an operator must decide: retry, skip or mark-undone."
            yield Reason(kind="operator", subject=name, message=message)
        elif index in run.tickets:
            yield self._worker.calls.why(run.tickets[index])
        elif index in run.waiting:
            yield self._waiting(run, index)
        elif index in run.timers:
            when = moment(self._worker.ledger.now() + self._left(run, index))
            yield Reason(kind="retry", subject=name, message=f"{row.error if row else ''}", until=when)
        elif index in run.tasks:
            since = row.started if row else None
            begun = f" since {datetime.fromtimestamp(since, UTC):%H:%M:%S} UTC" if since else ""
            said = f": {row.message}" if row and row.message else "."
            yield Reason(kind="running", subject=name, message=f"It runs{begun}{said}")
        elif index in run.held:
            yield Reason(kind="paused", subject=run.id, message="It is held back while the run is paused.")
        elif (
            (row is None or row.state is StepState.PENDING)
            and not run.row.cause
            and index not in execution.results
        ):
            for before in execution.waits_for(index):
                earlier = run.name(before)
                yield Reason(kind="dependency", subject=earlier, message=f"It comes after step {earlier}.")

    def _waiting(self, run: ActiveRun, index: int) -> Reason:
        row, name = run.execution.row(index), run.waiting[index]
        due = self._worker.waits.until(run, index)
        kind = "timer" if not name else "approval" if name.startswith("approval/") else "signal"
        return Reason(
            kind=kind,
            subject=name or run.name(index),
            message=row.message,
            until=moment(due),
        )

    def _left(self, run: ActiveRun, index: int) -> float:
        return max(0.0, run.timers[index].when() - asyncio.get_running_loop().time())
