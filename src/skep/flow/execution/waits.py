"""Steps that wait: for a signal, an approval, a time."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from skep.flow.definition.durations import seconds_of
from skep.flow.definition.expressions import evaluate
from skep.flow.definition.plan import Approval, PlannedStep
from skep.flow.execution.active import ActiveRun
from skep.flow.execution.ledger import Ledger
from skep.flow.runs import Signal, StepState

LONGEST_SLEEP = 3600.0
"""Seconds; then the clock is looked at again, for it may have been set."""
PRECISION = 1e-6
"""Seconds: differences of the loop's times are not exact."""


class Waits:
    """`completed(run, index, value, stored)` and `failed(run, index, message)` are told how a wait ends."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        completed: Callable[[ActiveRun, int, Any, bytes], None],
        failed: Callable[[ActiveRun, int, str], None],
    ) -> None:
        self._ledger = ledger
        self._completed = completed
        self._failed = failed

    def begin(self, run: ActiveRun, index: int) -> None:
        """Wait, or go on waiting after a restart: the time that is waited for counts from the first start."""
        planned, row = run.execution.planned(index), run.execution.row(index)
        run.execution.active.add(index)
        row.started = row.started or self._ledger.now()
        run.elapsing[index] = _loop_time() - max(0.0, self._ledger.now() - row.started)
        try:
            value = self._value_of(run, index)
            self._due(run, index)
        except (ValueError, TypeError) as error:
            self._failed(run, index, f"cannot wait: {error}")
            return
        run.waiting[index] = self._signal_name(run, index, planned, value)
        if row.state is not StepState.WAITING:
            row.state, row.attempts, row.message = StepState.WAITING, 1, _said(planned, value)
            self._ledger.step(run, index)
            self._ledger.event(run, "waiting", run.name(index), row.message)
        if not self._taken(run, index, planned):
            self._sleep(run, index)

    def deliver(self, run: ActiveRun, signal: Signal) -> None:
        """Somebody told the run something; kept until a step asks for it."""
        if signal.id in run.heard:
            return
        run.heard.add(signal.id)
        run.signals.append(signal)
        if run.abandoned:
            return
        for index in sorted(index for index, name in run.waiting.items() if name == signal.name):
            if self._taken(run, index, run.execution.planned(index)):
                return

    def until(self, run: ActiveRun, index: int) -> float | None:
        """The time at which the wait ends by itself, in success or not; seconds since 1970."""
        left = self._left(run, index)
        return None if left is None else self._ledger.now() + left

    def _left(self, run: ActiveRun, index: int) -> float | None:
        """Seconds until then."""
        both = (self._due(run, index), self._limit(run, index))
        return min((left for left in both if left is not None), default=None)

    def _taken(self, run: ActiveRun, index: int, planned: PlannedStep) -> bool:
        name = run.waiting[index]
        signal = next((signal for signal in run.signals if name and signal.name == name), None)
        if signal is None:
            return False
        run.signals.remove(signal)
        self._ledger.journal.take_signal(run.id, signal.id, run.name(index))
        self._end(run, index)
        try:
            value, stored = self._value(run, planned, signal)
        except (ValueError, msgspec.DecodeError) as error:
            self._failed(run, index, str(error))
        else:
            self._completed(run, index, value, stored)
        return True

    def _value(self, run: ActiveRun, planned: PlannedStep, signal: Signal) -> tuple[Any, bytes]:
        if planned.wait is not None and planned.wait.kind == "approval":
            answer = msgspec.json.decode(signal.body, type=Approval)
            answer = msgspec.structs.replace(answer, by=signal.by)
            if not answer.approved:
                raise ValueError(
                    f"refused by {answer.by or 'somebody'}: {answer.comment or 'no reason given'}"
                )
            return answer, msgspec.json.encode(answer)
        assert run.bound is not None  # noqa: S101  (a run without code waits for nothing)
        return run.bound.signal_decoder(planned)(signal.body), signal.body

    def _sleep(self, run: ActiveRun, index: int) -> None:
        left = self._left(run, index)
        if left is not None:
            self._ledger.later(min(left, LONGEST_SLEEP), run, index, self._woken)

    def _woken(self, run: ActiveRun, index: int) -> None:
        run.timers.pop(index, None)
        left = self._left(run, index)
        if left is None or left > PRECISION:
            self._sleep(run, index)
            return
        due, timeout = self._due(run, index), run.execution.planned(index).timeout
        self._end(run, index)
        if due is not None and due <= PRECISION:
            self._completed(run, index, None, b"null")
        else:
            self._failed(run, index, f"nobody answered within {timeout or 0:g} s")

    def _end(self, run: ActiveRun, index: int) -> None:
        run.waiting.pop(index, None)
        run.stop_timer(index)

    def _value_of(self, run: ActiveRun, index: int) -> object:
        wait = run.execution.planned(index).wait
        return None if wait is None else evaluate(wait.value, run.execution.lookup(index))

    def _due(self, run: ActiveRun, index: int) -> float | None:
        """Seconds until the time that is waited for comes; None of a wait for somebody."""
        wait = run.execution.planned(index).wait
        if wait is not None and wait.kind == "for":
            return seconds_of(self._value_of(run, index)) - self._waited(run, index)
        if wait is not None and wait.kind == "until":
            return moment_of(self._value_of(run, index)) - self._ledger.now()
        return None

    def _limit(self, run: ActiveRun, index: int) -> float | None:
        """Seconds until nobody may answer any more."""
        timeout = run.execution.planned(index).timeout
        return None if timeout is None else timeout - self._waited(run, index)

    def _waited(self, run: ActiveRun, index: int) -> float:
        """Seconds; a clock that is set while it waits changes nothing."""
        return _loop_time() - run.elapsing[index]

    def _signal_name(self, run: ActiveRun, index: int, planned: PlannedStep, value: object) -> str:
        kind = planned.wait.kind if planned.wait else ""
        if kind == "approval":
            return approval_of(run.name(index))
        return str(value) if kind == "signal" else ""


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def approval_of(step: str) -> str:
    """The name of the signal that answers the approval which this step waits for."""
    return f"approval/{step}"


def moment_of(value: object) -> float:
    """Seconds since 1970 of RFC 3339 text, a datetime, or seconds.  Raises ValueError."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"{value.isoformat()} has no time zone")
        return value.timestamp()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise ValueError(f"{value!r} is no time; give RFC 3339 or seconds since 1970")


def _said(planned: PlannedStep, value: object) -> str:
    match planned.wait.kind if planned.wait else "":
        case "approval":
            return str(value)
        case "signal":
            return f"waits for signal {value}"
        case "until":
            return f"waits until {value}"
        case _:
            return f"waits for {value}" if isinstance(value, str) else f"waits for {value} s"
