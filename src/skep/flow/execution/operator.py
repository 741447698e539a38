"""What an operator may decide about a step whose undo failed, or that may have had its effect."""

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
    index = run.execution.graph.index.get(step)
    if index is None or index not in run.stuck:
        raise WrongState(f"step {step!r} of run {run.id} does not wait for an operator")
    _require_possible(run, index, choice)
    worker.event(run, "resolved", step, f"{choice} by {by}" if by else choice)
    if run.row.cause:
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
    worker.undo(run, worker.settled(run, index, state))


def _require_undo(run: ActiveRun, index: int) -> None:
    if run.bound is None or run.bound.codes[index].step.undo_do is None:
        raise WrongState(f"step {run.name(index)} has no undo to try again")
    if not run.execution.undo_begun:
        raise WrongState(f"step {run.name(index)} will be undone once the running steps have ended")


def _resolve_forward(worker: Worker, run: ActiveRun, index: int, choice: Choice) -> None:
    row = run.execution.row(index)
    if choice == "mark-undone":
        worker.settled(run, index, StepState.UNDONE)
        worker.stop(run, RunState.FAILED, f"step {run.name(index)}: {row.message}")
        return
    run.row.error = ""
    run.stuck.discard(index)
    if choice == "retry":
        worker.start(run, index)
    else:
        worker.settled(run, index, StepState.SKIPPED)
        worker.completed(run, index, None)


def _require_possible(run: ActiveRun, index: int, choice: Choice) -> None:
    if choice == "skip" and not run.row.cause:
        _require_no_result(run, index)
    if choice == "retry" and run.row.cause:
        _require_undo(run, index)


def _require_no_result(run: ActiveRun, index: int) -> None:
    """A step may be skipped if nobody needs its result, or if None is one."""
    name = run.name(index)
    if name in run.execution.graph.used and run.bound and not fits(None, run.bound.codes[index].returns):
        raise WrongState(f"step {name} cannot be skipped: other steps need its result")
