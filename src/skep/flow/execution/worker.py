"""Carries runs out: admits steps, has their code called, and records what became of them.

Every decision is made in one go without awaiting: the graph is updated, the rows that changed are named to
the journal, and what follows (calling the next steps) is handed to it to be done after the commit.  So the
end of a step and the beginning of its successors share a commit.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

import structlog

from skep.flow.execution.active import ActiveRun
from skep.flow.execution.attempt import (
    Disconnected,
    Doubt,
    Failure,
    NotCalled,
    Outcome,
    Postponed,
    Success,
    message_of,
)
from skep.flow.execution.caller import Caller
from skep.flow.runs import RunState, StepState
from skep.flow.storage.journal import Journal
from skep.flow.storage.records import output_of

log = structlog.get_logger(__name__)

UNDO_TRIES = 5
RETRY_BUDGET = 300.0
"""Seconds for which a step without a timeout may raise `Retry`."""


class Worker:
    """The steps that are ready, in the order they became so, and `concurrency` of them under way."""

    def __init__(
        self,
        journal: Journal,
        caller: Caller,
        *,
        concurrency: int,
        clock: Callable[[], float],
        retry_delay: Callable[[int], float],
        ended: Callable[[ActiveRun], None],
    ) -> None:
        self.closing = False
        self.under_way: set[asyncio.Task[Outcome]] = set()
        self._journal = journal
        self._caller = caller
        self._free = concurrency
        self._clock = clock
        self._retry_delay = retry_delay
        self._ended = ended
        self._ready: deque[tuple[ActiveRun, int, bool]] = deque()
        self._admitting = False

    # the run as a whole

    def begin(self, run: ActiveRun) -> None:
        """Start or go on with a run that holds its locks."""
        if run.row.state is RunState.PENDING:
            run.row.state, run.row.started = RunState.RUNNING, self._clock()
            self.event(run, "run-started")
        else:
            self.event(run, "run-resumed", message=f"epoch {run.row.epoch}")
        self._journal.save_run(run.row)
        if not run.row.cause:
            self._resume(run)
        self.settle(run)

    def stop(self, run: ActiveRun, cause: str, error: str) -> None:
        """Go forward no more; undo what was done once nothing is under way.  `cause`: the end's name."""
        if run.row.cause:
            return
        run.row.cause, run.row.error = cause, error
        for index, timer in run.timers.items():
            timer.cancel()
            run.execution.active.discard(index)
        run.timers.clear()
        self.event(run, "run-undoing", message=error)

    def cancel_tasks(self, run: ActiveRun) -> None:
        """Interrupt what is under way, except what is inside a transaction."""
        for index, task in run.tasks.items():
            if not self._caller.in_transaction(run, index):
                task.cancel()

    def settle(self, run: ActiveRun) -> None:
        """See what the run as a whole has come to."""
        row, execution = run.row, run.execution
        if row.state.ended:
            return
        if row.cause and not execution.active and not execution.undo_begun:
            self.undo(run, execution.begin_undo())
        if not row.cause and execution.finished:
            self._end(run, RunState.SUCCEEDED)
        elif execution.all_undone:
            self._end(run, RunState(row.cause))
        else:
            self._set_state(run)

    def event(self, run: ActiveRun, kind: str, step: str = "", message: str = "") -> None:
        run.sequence += 1
        self._journal.add_event(run.id, run.sequence, step, kind, self._clock(), message)
        if run.followers:
            self._journal.afterwards(run.wake)

    def _resume(self, run: ActiveRun) -> None:
        for index, row in enumerate(run.execution.rows):
            if row is None:
                continue
            if row.state is StepState.NEEDS_OPERATOR:
                run.stuck.add(index)
            elif row.state is StepState.RUNNING and self._caller.at_most_once(run, index):
                self._doubt(
                    run, index, "the worker died while it ran; whether it had its effect is not known"
                )
            elif row.state in (StepState.RUNNING, StepState.RETRYING):
                self.start(run, index)
        for index in run.execution.begin():
            self.start(run, index)

    def _set_state(self, run: ActiveRun) -> None:
        forward = RunState.UNDOING if run.row.cause else RunState.RUNNING
        state = RunState.NEEDS_OPERATOR if run.stuck else forward
        if state is not run.row.state:
            run.row.state = state
            if state is RunState.NEEDS_OPERATOR:
                self.event(run, "run-needs-operator", message=", ".join(map(run.name, sorted(run.stuck))))
            self._journal.save_run(run.row)

    def _end(self, run: ActiveRun, state: RunState) -> None:
        run.row.state, run.row.finished = state, self._clock()
        if state is RunState.SUCCEEDED:
            run.row.output = output_of(run.execution)
        self._journal.save_run(run.row)
        self.event(run, f"run-{state.value}", message=run.row.error)
        self._journal.afterwards(partial(self._ended, run))

    # admission

    def start(self, run: ActiveRun, index: int) -> None:
        """The step may go forward as soon as there is room."""
        run.timers.pop(index, None)
        run.execution.active.add(index)
        self._ready.append((run, index, False))
        self._admit()

    def start_undo(self, run: ActiveRun, index: int) -> None:
        run.timers.pop(index, None)
        self._ready.append((run, index, True))
        self._admit()

    def _admit(self) -> None:
        if self._admitting:
            return
        self._admitting = True
        try:
            while self._ready and self._free > 0 and not self.closing:
                self._launch(*self._ready.popleft())
        finally:
            self._admitting = False

    def _launch(self, run: ActiveRun, index: int, undo: bool) -> None:
        """Record that the code may run from now on, then have it called."""
        if not undo and run.row.cause:
            run.execution.active.discard(index)
            self.settle(run)
            return
        self._free -= 1
        row = run.execution.row(index)
        if undo:
            row.state, row.undo_attempts = StepState.UNDOING, row.undo_attempts + 1
        else:
            row.state, row.attempts = StepState.RUNNING, row.attempts + 1
            row.started, row.error = row.started or self._clock(), ""
        self._journal.save_step(run.id, run.name(index), row)
        self.event(run, "undoing" if undo else "started", run.name(index))
        call = partial(self._call, run, index, undo)
        if self._caller.transactional(run, index):
            call()  # it joins the transaction that records its start, or a later one
        else:
            self._journal.afterwards(call)

    def _call(self, run: ActiveRun, index: int, undo: bool) -> None:
        if self.closing:
            return
        report = partial(self._progress, run, index)
        task = asyncio.create_task(
            self._caller.call(run, index, undo, report), name=f"{run.id}/{run.name(index)}"
        )
        run.tasks[index] = task
        self.under_way.add(task)
        task.add_done_callback(partial(self._called, run, index, undo))
        if run.row.cause == RunState.CANCELLED and not undo and not self._caller.transactional(run, index):
            task.cancel()

    def _called(self, run: ActiveRun, index: int, undo: bool, task: asyncio.Task[Outcome]) -> None:
        self.under_way.discard(task)
        run.tasks.pop(index, None)
        if task.cancelled() and self.closing:
            return
        self._free += 1
        outcome = self._cancelled(run, index) if task.cancelled() else _result(task)
        (self._conclude_undo if undo else self._conclude)(run, index, outcome)
        self._admit()

    def _cancelled(self, run: ActiveRun, index: int) -> Outcome:
        if self._caller.at_most_once(run, index):
            return Doubt("cancelled while it ran; whether it had its effect is not known")
        return Failure("cancelled")

    def _progress(self, run: ActiveRun, index: int, message: str) -> None:
        row = run.execution.row(index)
        row.message = message
        if not self._caller.transactional(run, index):  # whose row is written by its own transaction
            self._journal.save_step(run.id, run.name(index), row)
        self.event(run, "progress", run.name(index), message)

    # forward

    def _conclude(self, run: ActiveRun, index: int, outcome: Outcome) -> None:
        match outcome:
            case Success():
                self._succeed(run, index, outcome)
            case Doubt(message):
                self._doubt(run, index, message)
            case Disconnected(message):
                self._retry(run, index, message, None)
            case Postponed(message, after) if self._in_budget(run, index):
                self._retry(run, index, message, after)
            case NotCalled(message):
                run.execution.row(index).attempts -= 1
                self._retry_or_fail(run, index, message)
            case Failure(message):
                self._retry_or_fail(run, index, message)
            case Postponed(message):
                self._fail(run, index, message)
        self.settle(run)

    def _succeed(self, run: ActiveRun, index: int, outcome: Success) -> None:
        row = run.execution.row(index)
        row.state, row.result, row.finished = StepState.SUCCEEDED, outcome.stored, self._clock()
        self._journal.save_step(run.id, run.name(index), row)
        self.event(run, "succeeded", run.name(index))
        self.completed(run, index, outcome.value)

    def completed(self, run: ActiveRun, index: int, value: object) -> None:
        """Start what waited for the step only."""
        run.execution.active.discard(index)
        for successor in run.execution.complete(index, value):
            if not run.row.cause:
                self.start(run, successor)

    def _retry_or_fail(self, run: ActiveRun, index: int, message: str) -> None:
        memory = run.remember(index)
        if memory.failures < self._caller.retries(run, index):
            memory.failures += 1
            self._retry(run, index, message, None)
        else:
            self._fail(run, index, message)

    def _retry(self, run: ActiveRun, index: int, message: str, after: float | None) -> None:
        if run.row.cause:
            self._fail(run, index, message)
            return
        row = run.execution.row(index)
        delay = self._retry_delay(max(1, row.attempts)) if after is None else after
        row.state, row.error, row.message = StepState.RETRYING, message, message
        self._journal.save_step(run.id, run.name(index), row)
        self.event(run, "retrying", run.name(index), f"{message} (again in {delay:.1f} s)")
        self._later(delay, run, index, self.start)

    def _fail(self, run: ActiveRun, index: int, message: str) -> None:
        row = run.execution.row(index)
        row.state, row.error, row.message, row.finished = StepState.FAILED, message, message, self._clock()
        run.execution.active.discard(index)
        self._journal.save_step(run.id, run.name(index), row)
        self.event(run, "failed", run.name(index), message)
        self.stop(run, RunState.FAILED, f"step {run.name(index)}: {message}")

    def _doubt(self, run: ActiveRun, index: int, message: str) -> None:
        run.execution.active.discard(index)
        self._ask(run, index, "in-doubt", message)
        if not run.row.cause:
            run.row.error = f"step {run.name(index)}: {message}"

    def _in_budget(self, run: ActiveRun, index: int) -> bool:
        now, memory = asyncio.get_running_loop().time(), run.remember(index)
        memory.first = memory.first or now
        return now - memory.first < (self._caller.timeout(run, index) or RETRY_BUDGET)

    # back

    def undo(self, run: ActiveRun, ready: list[int]) -> None:
        """Undo these steps; those that have nothing to undo are passed over at once."""
        while ready:
            index = ready.pop()
            match self._caller.undo_of(run, index):
                case "run":
                    run.stuck.discard(index)
                    self.start_undo(run, index)
                case "nothing":
                    ready += self.settled(run, index, StepState.UNDONE)
                case "in-doubt":
                    self._ask(run, index, "in-doubt", "may have had its effect, and has no undo")
                case "stuck":
                    run.stuck.add(index)

    def settled(self, run: ActiveRun, index: int, state: StepState) -> list[int]:
        """The step is undone or left as it is; answers those that may be undone now."""
        row = run.execution.row(index)
        row.state = state
        run.stuck.discard(index)
        self._journal.save_step(run.id, run.name(index), row)
        return run.execution.undone(index) if run.execution.undo_begun else []

    def _conclude_undo(self, run: ActiveRun, index: int, outcome: Outcome) -> None:
        match outcome:
            case Success():
                self.event(run, "undone", run.name(index))
                self.undo(run, self.settled(run, index, StepState.UNDONE))
            case Postponed(message, after):
                self._undo_again(run, index, message, after)
            case Disconnected(message):
                self._later(self._retry_delay(1), run, index, self.start_undo)
            case Failure(message) | NotCalled(message) | Doubt(message):
                self._undo_again(run, index, message, None)
        self.settle(run)

    def _undo_again(self, run: ActiveRun, index: int, message: str, after: float | None) -> None:
        memory = run.remember(index)
        memory.undo_failures += 1
        if memory.undo_failures >= UNDO_TRIES:
            memory.undo_failures = 0
            self._ask(run, index, "undo-failed", f"undo failed: {message}")
            return
        delay = self._retry_delay(memory.undo_failures) if after is None else after
        self.event(run, "undo-retrying", run.name(index), f"{message} (again in {delay:.1f} s)")
        self._later(delay, run, index, self.start_undo)

    def _ask(self, run: ActiveRun, index: int, kind: str, message: str) -> None:
        """The step waits for an operator."""
        row = run.execution.row(index)
        row.state, row.message = StepState.NEEDS_OPERATOR, message
        run.stuck.add(index)
        self._journal.save_step(run.id, run.name(index), row)
        self.event(run, kind, run.name(index), message)

    def _later(
        self, delay: float, run: ActiveRun, index: int, action: Callable[[ActiveRun, int], None]
    ) -> None:
        run.timers[index] = asyncio.get_running_loop().call_later(max(0.0, delay), action, run, index)


def _result(task: asyncio.Task[Outcome]) -> Outcome:
    error = task.exception()
    if error is None:
        return task.result()
    log.error("flow.defect", exc_info=error)
    return Failure(f"internal error: {message_of(error)}")
