"""The way back: undoes steps, and asks an operator where that does not succeed."""

from collections.abc import Callable, Sequence

from skep.flow.execution.active import ActiveRun
from skep.flow.execution.attempt import (
    Disconnected,
    Doubt,
    Failure,
    Lost,
    NotCalled,
    Outcome,
    Postponed,
    Success,
)
from skep.flow.execution.caller import Caller
from skep.flow.execution.fanout import Scope
from skep.flow.execution.ledger import Ledger
from skep.flow.runs import StepState

UNDO_TRIES = 5


class Back:
    """`start_undo` asks for the call of an undo, `given_up` is told of an item that is undone."""

    def __init__(
        self,
        ledger: Ledger,
        caller: Caller,
        *,
        start_undo: Callable[[ActiveRun, int], None],
        given_up: Callable[[ActiveRun, Scope], None],
        retry_delay: Callable[[int], float],
    ) -> None:
        self._ledger = ledger
        self._caller = caller
        self._start_undo = start_undo
        self._given_up = given_up
        self._retry_delay = retry_delay

    def undo(self, run: ActiveRun, steps: Sequence[int]) -> None:
        """Undo these steps; those that have nothing to undo are passed over at once."""
        ready = list(steps)
        while ready:
            index = ready.pop()
            match self._caller.undo_of(run, index):
                case "run":
                    run.stuck.discard(index)
                    self._start_undo(run, index)
                case "nothing":
                    ready += self.settled(run, index, StepState.UNDONE)
                case "in-doubt":
                    self.ask(run, index, "in-doubt", "may have had its effect, and has no undo")
                case "stuck":
                    run.stuck.add(index)

    def settled(self, run: ActiveRun, index: int, state: StepState) -> Sequence[int]:
        """The step is undone or left as it is; answers those that may be undone now."""
        run.execution.row(index).state = state
        run.stuck.discard(index)
        self._ledger.step(run, index)
        ready, scope = run.execution.settled(index)
        if scope is not None:
            self._given_up(run, scope)
        return ready

    def conclude(self, run: ActiveRun, index: int, outcome: Outcome) -> None:
        """An undo has been called, and this came of it."""
        match outcome:
            case Success():
                self._ledger.event(run, "undone", run.name(index))
                self.undo(run, self.settled(run, index, StepState.UNDONE))
            case Postponed(message, after):
                self._again(run, index, message, after)
            case Disconnected() | Lost():
                self._ledger.later(self._retry_delay(1), run, index, self._start_undo)
            case Failure(message) | NotCalled(message) | Doubt(message):
                self._again(run, index, message, None)

    def ask(self, run: ActiveRun, index: int, kind: str, message: str) -> None:
        """The step waits for an operator."""
        row = run.execution.row(index)
        row.state, row.message = StepState.NEEDS_OPERATOR, message
        run.stuck.add(index)
        self._ledger.step(run, index)
        self._ledger.event(run, kind, run.name(index), message)

    def _again(self, run: ActiveRun, index: int, message: str, after: float | None) -> None:
        memory = run.remember(index)
        memory.undo_failures += 1
        if memory.undo_failures >= UNDO_TRIES:
            memory.undo_failures = 0
            self.ask(run, index, "undo-failed", f"undo failed: {message}")
            return
        delay = self._retry_delay(memory.undo_failures) if after is None else after
        self._ledger.event(run, "undo-retrying", run.name(index), f"{message} (again in {delay:.1f} s)")
        self._ledger.later(delay, run, index, self._start_undo)
