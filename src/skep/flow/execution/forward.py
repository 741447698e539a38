"""The way forward: starts steps, fans out, and decides what becomes of each that ends."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from skep.flow.definition.expressions import evaluate
from skep.flow.definition.plan import PlannedStep, RetryPolicy
from skep.flow.execution.active import ActiveRun
from skep.flow.execution.attempt import (
    Disconnected,
    Doubt,
    Failure,
    Gone,
    Lost,
    NotCalled,
    Outcome,
    Postponed,
    Success,
    message_of,
)
from skep.flow.execution.caller import Caller
from skep.flow.execution.ledger import Ledger
from skep.flow.runs import StepState

RETRY_BUDGET = 300.0
"""Seconds for which a step without a timeout may raise `Retry`."""
LARGEST_FANOUT = 100_000
SLICE = 1000
"""Items of a fan-out that are opened in one turn of the event loop: some 10 ms."""


class Forward:
    """`call` asks for the call of a step, `wait` begins a wait, `ask` makes a step wait for an operator,
    `stop` ends the way forward because of a step that failed, `settle` sees what the run has come to."""

    def __init__(
        self,
        ledger: Ledger,
        caller: Caller,
        *,
        call: Callable[[ActiveRun, int], None],
        wait: Callable[[ActiveRun, int], None],
        ask: Callable[[ActiveRun, int, str, str], None],
        stop: Callable[[ActiveRun, int, str], None],
        settle: Callable[[ActiveRun], None],
        retry_delay: Callable[[RetryPolicy, int], float],
    ) -> None:
        self._ledger = ledger
        self._caller = caller
        self._call = call
        self._wait = wait
        self._ask = ask
        self._stop = stop
        self._settle = settle
        self._ready: deque[tuple[ActiveRun, int]] = deque()
        self._starting = False
        self._retry_delay = retry_delay

    def start(self, run: ActiveRun, index: int) -> None:
        """Nothing that the step depends on is missing any more."""
        run.timers.pop(index, None)
        if run.row.cause:  # a step beside it could not begin
            run.execution.active.discard(index)
            return
        planned = run.execution.planned(index)
        if planned.when is None and planned.use and planned.each is None:
            run.execution.active.add(index)
            self._call(run, index)
            return
        if run.row.paused:
            run.held[index] = False
            return
        try:
            holds = planned.when is None or evaluate(planned.when, run.execution.lookup(index))
        except Exception as error:
            self.fail(run, index, f"its condition cannot be worked out: {message_of(error)}")
            return
        if not holds:
            self._skip(run, index)
        elif planned.each is not None:
            self._fan_out(run, index, planned)
        elif planned.wait is not None:
            self._wait(run, index)
        else:
            run.execution.active.add(index)
            self._call(run, index)

    def conclude(self, run: ActiveRun, index: int, outcome: Outcome) -> None:
        """The code has been called, and this came of it."""
        match outcome:
            case Success(value, stored):
                self.succeed(run, index, value, stored)
            case Doubt(message):
                self.doubt(run, index, message)
            case Disconnected(message):
                self._again(run, index, message, None)
            case Lost(message) if self._caller.at_most_once(run, index):
                self.doubt(run, index, message)
            case Lost(message):
                self._again(run, index, message, None)
            case Postponed(message, after) if self._may_postpone(run, index):
                self._again(run, index, message, after)
            case NotCalled(message):
                run.execution.row(index).attempts -= 1
                self._again_or_fail(run, index, message)
            case Gone(message):
                run.execution.row(index).attempts -= 1
                self.fail(run, index, message)
            case Failure(message):
                self._again_or_fail(run, index, message)
            case Postponed(message):
                self.fail(run, index, message)

    def succeed(self, run: ActiveRun, index: int, value: Any, stored: bytes) -> None:
        row = run.execution.row(index)
        row.state, row.finished = StepState.SUCCEEDED, self._ledger.now()
        row.result, row.blob = self._ledger.journal.keep(stored)
        self._ledger.step(run, index)
        self._ledger.event(run, "succeeded", run.name(index))
        self.completed(run, index, value)

    def completed(self, run: ActiveRun, index: int, value: object) -> None:
        """Start what waited for the step only."""
        execution = run.execution
        execution.active.discard(index)
        ready = execution.complete(index, value)
        if not run.row.cause:
            if run.row.crashes:  # it gets on: whoever died meanwhile did not die of it
                run.row.crashes = 0
                self._ledger.run(run)
            self.start_all(run, ready)

    def start_all(self, run: ActiveRun, ready: list[int]) -> None:
        """Start these, but nothing of items that have been given up.

        What can start by that is started after them, not within: thousands may be skipped one after another.
        """
        self._ready.extend([(run, index) for index in ready])
        if self._starting:
            return
        self._starting = True
        try:
            while self._ready:
                run, index = self._ready.popleft()
                if run.execution.scope(index) is None or run.execution.dropped(index) is None:
                    self.start(run, index)
        finally:
            self._starting = False

    def join(self, run: ActiveRun, index: int) -> None:
        """The last item of a fan-out has ended."""
        stored = msgspec.json.encode(run.execution.joint(index))
        row, fanout = run.execution.row(index), run.execution.fanouts[index]
        row.message = f"{len(fanout.items) - fanout.failed} of {len(fanout.items)} succeeded"
        self.succeed(run, index, msgspec.json.decode(stored), stored)

    def fail(self, run: ActiveRun, index: int, message: str) -> None:
        """For good: the item that it belongs to is given up if that is allowed, else the run."""
        row = run.execution.row(index)
        row.state, row.error, row.message, row.finished = (
            StepState.FAILED,
            message,
            message,
            self._ledger.now(),
        )
        run.execution.active.discard(index)
        run.waiting.pop(index, None)
        scope = None if run.row.cause else run.execution.tolerate(index)
        if scope is None and self._asks(run):
            self._ask(run, index, "failed", message)
            run.row.error = run.row.error or f"step {run.name(index)}: {message}"
            return
        self._ledger.step(run, index)
        self._ledger.event(run, "failed", run.name(index), message)
        if scope is None:
            self._stop(run, index, message)
        elif scope not in run.dropped and not scope.unwinding:
            run.dropped.append(scope)

    def doubt(self, run: ActiveRun, index: int, message: str) -> None:
        run.execution.active.discard(index)
        self._ask(run, index, "in-doubt", message)
        if not run.row.cause:
            run.row.error = f"step {run.name(index)}: {message}"

    def _skip(self, run: ActiveRun, index: int) -> None:
        row = run.execution.row(index)
        row.state, row.finished = StepState.SKIPPED, self._ledger.now()
        self._ledger.step(run, index)
        self._ledger.event(run, "skipped", run.name(index), "its condition does not hold")
        self.completed(run, index, None)

    def _fan_out(self, run: ActiveRun, index: int, planned: PlannedStep) -> None:
        assert planned.each is not None  # noqa: S101  (the caller has looked)
        row = run.execution.row(index)
        try:
            items = list(evaluate(planned.each.items, run.execution.lookup(index)))  # type: ignore[call-overload]
        except Exception as error:
            self.fail(run, index, f"its list cannot be worked out: {message_of(error)}")
            return
        if len(items) > LARGEST_FANOUT:
            self.fail(
                run,
                index,
                f"a list of {len(items)} is too long to fan out over; {LARGEST_FANOUT} is the most",
            )
            return
        row.state, row.attempts, row.started = StepState.RUNNING, 1, row.started or self._ledger.now()
        row.message = f"{len(items)} items"
        self._ledger.step(run, index)
        self._ledger.event(run, "started", run.name(index), row.message)
        ready = run.execution.expand(index, items, SLICE)
        run.row.total = run.execution.size
        self._ledger.run(run)
        self.start_all(run, ready)
        self._go_on_widening(run, index)

    def _go_on_widening(self, run: ActiveRun, index: int) -> None:
        fanout = run.execution.fanouts[index]
        if fanout.width < fanout.most:
            asyncio.get_running_loop().call_soon(self._widen, run, index)

    def _widen(self, run: ActiveRun, index: int) -> None:
        if run.abandoned or run.row.cause or run.execution.dropped(index):
            return
        self.start_all(run, run.execution.widen(index, SLICE))
        self._go_on_widening(run, index)
        self._settle(run)

    def _again_or_fail(self, run: ActiveRun, index: int, message: str) -> None:
        policy, memory = self._caller.retry_policy(run, index), run.remember(index)
        if memory.failures < policy.times and self._in_budget(run, index, policy.budget):
            memory.failures += 1
            self._again(run, index, message, None)
        else:
            self.fail(run, index, message)

    def _again(self, run: ActiveRun, index: int, message: str, after: float | None) -> None:
        if run.row.cause or run.execution.dropped(index):
            self.fail(run, index, message)
            return
        row = run.execution.row(index)
        policy = self._caller.retry_policy(run, index)
        delay = self._retry_delay(policy, max(1, row.attempts)) if after is None else after
        row.state, row.error, row.message = StepState.RETRYING, message, message
        self._ledger.step(run, index)
        self._ledger.event(run, "retrying", run.name(index), f"{message} (again in {delay:.1f} s)")
        self._ledger.later(delay, run, index, self.start)

    def _may_postpone(self, run: ActiveRun, index: int) -> bool:
        now, memory = asyncio.get_running_loop().time(), run.remember(index)
        memory.first = memory.first or now
        budget = self._caller.retry_policy(run, index).budget
        return now - memory.first < (budget or self._caller.timeout(run, index) or RETRY_BUDGET)

    def _in_budget(self, run: ActiveRun, index: int, budget: float | None) -> bool:
        started = run.execution.row(index).started
        return budget is None or started is None or self._ledger.now() - started < budget

    def _asks(self, run: ActiveRun) -> bool:
        return run.execution.graph.plan.on_failure == "ask" and not run.row.cause
