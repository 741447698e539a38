"""Carries runs out: sees what a run as a whole has come to, and joins the way forward with the way back.

Every decision is made in one go without awaiting: the graph is updated, the rows that changed are named to
the journal, and what follows (calling the next steps) is handed to it to be done after the commit.  So the
end of a step and the beginning of its successors share a commit.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from skep.flow.admission.admission import Admission
from skep.flow.definition.plan import RetryPolicy
from skep.flow.execution.active import ActiveRun
from skep.flow.execution.attempt import Outcome
from skep.flow.execution.back import Back
from skep.flow.execution.caller import Caller
from skep.flow.execution.calls import Calls
from skep.flow.execution.fanout import Scope
from skep.flow.execution.forward import Forward
from skep.flow.execution.ledger import Ledger
from skep.flow.execution.observer import Observer
from skep.flow.execution.waits import LONGEST_SLEEP, Waits
from skep.flow.runs import RunState, StepState

DIED = "the worker died while it ran; whether it had its effect is not known"


class Worker:
    """The runs of this process.  `ended` is told of each whose end is durable."""

    def __init__(
        self,
        ledger: Ledger,
        caller: Caller,
        admission: Admission,
        *,
        retry_delay: Callable[[RetryPolicy, int], float],
        ended: Callable[[ActiveRun], None],
        observers: Sequence[Observer] = (),
    ) -> None:
        self.ledger = ledger
        self.caller = caller
        self.calls = Calls(ledger, caller, admission, observers, self._concluded)
        self.waits = Waits(ledger, completed=self._waited, failed=self._wait_failed)
        self.back = Back(
            ledger,
            caller,
            start_undo=self.start_undo,
            given_up=self._given_up,
            retry_delay=partial(retry_delay, RetryPolicy()),
        )
        self.forward = Forward(
            ledger,
            caller,
            call=partial(self.calls.request, undo=False),
            wait=self.waits.begin,
            ask=self.back.ask,
            stop=self._step_failed,
            settle=self.settle,
            retry_delay=retry_delay,
        )
        self._observers = observers
        self._ended = ended

    # the run as a whole

    def begin(self, run: ActiveRun) -> None:
        """Start or go on with a run that holds its locks."""
        row, run.begun = run.row, True
        if row.state is RunState.PENDING or row.started is None:
            row.state, row.started = RunState.RUNNING, row.started or self.ledger.now()
            self._set_deadline(run)
            self.ledger.event(run, "run-started")
        else:
            self.ledger.event(run, "run-resumed", message=f"epoch {row.epoch}")
        self.ledger.run(run)
        for observer in self._observers:
            observer.run_started(row)
        self._watch_deadline(run)
        if row.cause:
            self._resume_back(run)
        else:
            self._resume(run)
        self.settle(run)

    def stop(self, run: ActiveRun, cause: RunState, error: str) -> None:
        """Go forward no more; what was done is undone once nothing is under way."""
        if run.row.cause:
            return
        run.row.cause, run.row.error = cause.value, error
        active = run.execution.active
        for index in active.intersection(run.timers):  # the others are undos of items, and go on
            run.stop_timer(index)
            active.discard(index)
        active.difference_update(run.waiting, self.calls.withdraw(run, undo=False))
        run.stop_deadline()
        run.waiting.clear()
        run.dropped.clear()
        self.ledger.run(run)
        self.ledger.event(run, "run-stopping" if self._keeps(run) else "run-undoing", message=error)

    def pause(self, run: ActiveRun, by: str) -> None:
        """Start no further step; those under way end."""
        run.row.paused = True
        self.calls.hold(run)
        self.ledger.event(run, "run-paused", message=f"by {by}" if by else "")
        self.ledger.run(run)
        self.settle(run)

    def resume(self, run: ActiveRun, by: str) -> None:
        run.row.paused = False
        held, run.held = run.held, {}
        self.ledger.event(run, "run-unpaused", message=f"by {by}" if by else "")
        self.ledger.run(run)
        for index, undo in held.items():
            (self.start_undo if undo else self.forward.start)(run, index)
        self.settle(run)

    def give_up(self, run: ActiveRun) -> None:
        """End a run as failed that cannot be loaded; nothing of it is undone."""
        self._end(run, RunState.FAILED)

    def settle(self, run: ActiveRun) -> None:
        """See what the run as a whole has come to."""
        row, execution = run.row, run.execution
        if row.state.ended or not run.begun or run.abandoned:
            return
        if execution.joined or run.dropped:
            self._settle_items(run)
        if row.cause:
            self._settle_back(run)
        elif execution.finished:
            self._end(run, RunState.SUCCEEDED)
        else:
            self._set_state(run)

    def start_undo(self, run: ActiveRun, index: int) -> None:
        run.timers.pop(index, None)
        self.calls.request(run, index, True)

    def _settle_back(self, run: ActiveRun) -> None:
        execution = run.execution
        if (
            not execution.active
            and not execution.unwinding
            and not (run.stuck and execution.rollback is None)
        ):
            if self._keeps(run):
                self._end(run, RunState.FAILED)
                return
            if execution.rollback is None:
                self.back.undo(run, execution.begin_undo())
        if execution.all_undone:
            self._end(run, RunState(run.row.cause))
        else:
            self._set_state(run)

    def _keeps(self, run: ActiveRun) -> bool:
        return run.execution.graph.plan.on_failure == "keep" and run.row.cause == RunState.FAILED

    def _set_state(self, run: ActiveRun) -> None:
        if run.stuck:
            state = RunState.NEEDS_OPERATOR
        elif run.row.paused:
            state = RunState.PAUSED
        elif run.row.cause:
            state = RunState.UNDOING
        elif run.waiting and len(run.waiting) == len(run.execution.active):
            state = RunState.WAITING
        else:
            state = RunState.RUNNING
        if state is not run.row.state:
            run.row.state = state
            if state is RunState.NEEDS_OPERATOR:
                self.ledger.event(
                    run, "run-needs-operator", message=", ".join(map(run.name, sorted(run.stuck)))
                )
            self.ledger.run(run)

    def _end(self, run: ActiveRun, state: RunState) -> None:
        run.row.state, run.row.finished, run.row.paused = state, self.ledger.now(), False
        run.stop_timers()
        if state is RunState.SUCCEEDED:
            run.row.output = run.execution.output()
        self.ledger.run(run)
        self.ledger.event(run, f"run-{state.value}", message=run.row.error)
        self.ledger.journal.afterwards(partial(self._end_is_durable, run))

    def _end_is_durable(self, run: ActiveRun) -> None:
        for observer in self._observers:
            observer.run_ended(run.row)
        self._ended(run)

    def _resume(self, run: ActiveRun) -> None:
        """Take up what an earlier worker left, then what was never started."""
        execution = run.execution
        fresh = execution.begin()
        for index, row in enumerate(list(execution.rows)):
            if row is None or (execution.scope(index) is not None and execution.dropped(index)):
                continue
            if row.state is StepState.NEEDS_OPERATOR:
                run.stuck.add(index)
            elif row.state is StepState.RUNNING and index in execution.fanouts:
                continue
            elif row.state is StepState.RUNNING and self._is_doubtful(run, index):
                self.forward.doubt(run, index, DIED)
            elif row.state in (StepState.RUNNING, StepState.RETRYING, StepState.WAITING):
                self.forward.start(run, index)
        self.forward.start_all(run, fresh)

    def _resume_back(self, run: ActiveRun) -> None:
        """What an operator was asked before anything was undone is still to be answered."""
        for index, row in enumerate(list(run.execution.rows)):
            if row is None:
                continue
            if row.state is StepState.NEEDS_OPERATOR and not row.undo_attempts:
                run.stuck.add(index)
            elif row.state is StepState.RUNNING and self._keeps(run) and self._is_doubtful(run, index):
                self.forward.doubt(run, index, DIED)

    def _is_doubtful(self, run: ActiveRun, index: int) -> bool:
        planned = run.execution.planned(index)
        return bool(planned.use) and planned.each is None and self.caller.at_most_once(run, index)

    # deadlines

    def _set_deadline(self, run: ActiveRun) -> None:
        timeout = run.execution.graph.plan.timeout
        if timeout is not None:
            moment = self.ledger.now() + timeout
            run.row.deadline = min(run.row.deadline or moment, moment)

    def _watch_deadline(self, run: ActiveRun) -> None:
        if run.row.deadline is not None and not run.row.cause:
            delay = min(max(0.0, run.row.deadline - self.ledger.now()), LONGEST_SLEEP)
            run.deadline = asyncio.get_running_loop().call_later(delay, self._look_at_deadline, run)

    def _look_at_deadline(self, run: ActiveRun) -> None:
        run.deadline = None
        if run.row.deadline is not None and run.row.deadline > self.ledger.now():
            self._watch_deadline(run)
            return
        self.stop(run, RunState.FAILED, "the deadline of the run has passed")
        self.calls.cancel(run)
        self.settle(run)
        self.ledger.run(run)

    # steps

    def _concluded(self, run: ActiveRun, index: int, undo: bool, outcome: Outcome) -> None:
        (self.back if undo else self.forward).conclude(run, index, outcome)
        self.settle(run)

    def _step_failed(self, run: ActiveRun, index: int, message: str) -> None:
        self.stop(run, RunState.FAILED, f"step {run.name(index)}: {message}")

    def _waited(self, run: ActiveRun, index: int, value: object, stored: bytes) -> None:
        self.forward.succeed(run, index, value, stored)
        self.settle(run)

    def _wait_failed(self, run: ActiveRun, index: int, message: str) -> None:
        self.forward.fail(run, index, message)
        self.settle(run)

    # items that are given up

    def _settle_items(self, run: ActiveRun) -> None:
        """Join the fan-outs whose last item has ended, and undo what failed; each may lead to the other."""
        joined = run.execution.joined
        while True:
            while joined:
                self.forward.join(run, joined.pop())
            self._unwind(run)
            if not joined:
                return

    def _unwind(self, run: ActiveRun) -> None:
        """Undo the failed items of which nothing is under way any more."""
        for scope in list(run.dropped):
            for index in scope.nodes():
                if (
                    index in run.waiting
                    or self.calls.take_back(run, index)
                    or self._waits_to_retry(run, index)
                ):
                    run.stop_timer(index)
                    run.waiting.pop(index, None)
                    run.execution.active.discard(index)
            if run.execution.is_quiet(scope):
                run.dropped.remove(scope)
                steps = run.execution.unwind(scope)
                if steps:
                    self.back.undo(run, steps)
                else:
                    self._given_up(run, scope)

    def _waits_to_retry(self, run: ActiveRun, index: int) -> bool:
        """The step, not its undo."""
        return index in run.timers and index in run.execution.active

    def _given_up(self, run: ActiveRun, scope: Scope) -> None:
        ready = run.execution.give_up(scope)
        if not run.row.cause:
            self.forward.start_all(run, ready)
