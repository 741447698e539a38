"""What an operator may decide about a step that failed, whose undo did, or that may have had its effect."""

from typing import Literal

from skep.flow.definition.hints import fits
from skep.flow.errors import WrongState
from skep.flow.execution.active import ActiveRun
from skep.flow.execution.worker import Worker
from skep.flow.runs import RunState, StepState

Choice = Literal["retry", "skip", "mark-undone"]


def resolve(worker: Worker, run: ActiveRun, step: str, choice: Choice, by: str) -> None:
    """Carry out the choice.

    Raises:
        WrongState: the step does not wait for an operator, or the choice is impossible.
    """
    index = run.execution.find(step)
    if index is None or index not in run.stuck:
        raise WrongState(f"step {step!r} of run {run.id} does not wait for an operator")
    back = bool(run.row.cause) or any(index in rollback for rollback in run.execution.unwinding.values())
    _require_possible(run, index, choice, back)
    worker.ledger.event(run, "resolved", step, f"{choice} by {by}" if by else choice)
    if back:
        _resolve_back(worker, run, index, choice)
    else:
        _resolve_forward(worker, run, index, choice)
    worker.settle(run)


def _resolve_back(worker: Worker, run: ActiveRun, index: int, choice: Choice) -> None:
    if choice == "retry":
        run.stuck.discard(index)
        worker.start_undo(run, index)
        return
    state = StepState.KEPT if choice == "skip" else StepState.UNDONE
    worker.back.undo(run, worker.back.settled(run, index, state))


def _resolve_forward(worker: Worker, run: ActiveRun, index: int, choice: Choice) -> None:
    row = run.execution.row(index)
    if choice == "mark-undone":
        worker.back.settled(run, index, StepState.UNDONE)
        worker.stop(run, RunState.FAILED, f"step {run.name(index)}: {row.message}")
        return
    run.row.error = ""
    run.stuck.discard(index)
    worker.ledger.run(run)
    if choice == "retry":
        run.tries.pop(index, None)
        worker.forward.start(run, index)
    else:
        worker.back.settled(run, index, StepState.SKIPPED)
        worker.forward.completed(run, index, None)


def _require_possible(run: ActiveRun, index: int, choice: Choice, back: bool) -> None:
    if choice == "skip" and not back:
        _require_no_result(run, index)
    if choice == "retry" and back:
        _require_undo(run, index)


def _require_undo(run: ActiveRun, index: int) -> None:
    if run.bound is None or run.bound.code(run.execution.planned(index)).step.undo_do is None:
        raise WrongState(f"step {run.name(index)} has no undo to try again")
    if run.execution.rollback is None and not run.execution.unwinding:
        raise WrongState(f"step {run.name(index)} will be undone once the running steps have ended")


def _require_no_result(run: ActiveRun, index: int) -> None:
    """A step may be skipped if nobody needs its result, or if None is one."""
    planned = run.execution.planned(index)
    if planned.name not in run.execution.graph.used or run.bound is None:
        return
    if not planned.use or planned.each or not fits(None, run.bound.code(planned).returns):
        raise WrongState(f"step {run.name(index)} cannot be skipped: other steps need its result")
