"""Calls of code: each asks for admission, begins once what was before it is durable, and has an outcome."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence, Set
from functools import partial

import structlog

from skep.flow.admission.admission import Admission
from skep.flow.admission.tickets import Ticket
from skep.flow.execution.active import ActiveRun
from skep.flow.execution.attempt import Doubt, Failure, NotCalled, Outcome, Success, message_of
from skep.flow.execution.caller import Caller
from skep.flow.execution.ledger import Ledger
from skep.flow.execution.observer import Observer
from skep.flow.execution.permitting import Permitting
from skep.flow.execution.tasks import Tasks
from skep.flow.runs import Reason, StepState

log = structlog.get_logger(__name__)

SHORT = 0.25
"""Seconds after which a step that still runs is recorded as running.  Most are over by then."""
Concluded = Callable[[ActiveRun, int, bool, Outcome], None]


class Calls:
    """The steps that are ready or under way.  `concluded(run, index, undo, outcome)` is told how they end."""

    def __init__(
        self,
        ledger: Ledger,
        caller: Caller,
        admission: Admission,
        observers: Sequence[Observer],
        concluded: Concluded,
    ) -> None:
        self.closing = False
        self._ledger = ledger
        self._caller = caller
        self._admission = admission
        self._observers = observers
        self._concluded = concluded
        self.permitting: Permitting | None = None
        """Where several workers share the database."""
        self._tasks = Tasks(self._carry_out)
        self._loop, self._home = asyncio.get_running_loop(), threading.get_ident()
        self._fresh: dict[Ticket, float] = {}
        """Steps that have just begun, with the time from which on they are recorded as running."""
        self._admitting = False
        self._marking: asyncio.TimerHandle | None = None
        self._waking: asyncio.TimerHandle | None = None

    @property
    def under_way(self) -> Set[asyncio.Task[None]]:
        """The tasks in which steps run."""
        return self._tasks.under_way

    # admission

    def request(self, run: ActiveRun, index: int, undo: bool) -> None:
        """The step, or its undo, may be called as soon as there is room."""
        if run.row.paused:
            run.held[index] = undo
            return
        try:
            ticket = self._caller.ticket(run, index, undo)
        except Exception as error:  # the route or a limit cannot be worked out
            if not undo:
                run.execution.row(index).attempts += 1
            self._concluded(run, index, undo, NotCalled(message_of(error)))
            return
        ticket.after = self._ledger.journal.position
        run.tickets[index] = ticket
        if self.permitting is None or not self.permitting.takes(ticket):
            self.submit(ticket)

    def submit(self, ticket: Ticket) -> None:
        """It has its permits, or needs none."""
        if not self.closing and self._admission.submit(ticket):
            self._launch(ticket)
            return
        ticket.queued = self._loop.time()
        if self._waking is None:
            self._wake_when_due()

    def hold(self, run: ActiveRun) -> None:
        """The run is paused: what is queued goes back."""
        for index, ticket in list(run.tickets.items()):
            self._withdraw(ticket)
            run.held[index] = ticket.payload[2]
        run.tickets.clear()

    def withdraw(self, run: ActiveRun, *, undo: bool) -> list[int]:
        """Forget what is queued, forward only unless `undo`; answers the steps."""
        gone = [index for index, ticket in run.tickets.items() if undo or not ticket.payload[2]]
        for index in gone:
            self._withdraw(run.tickets.pop(index))
        held = [index for index, back in run.held.items() if undo or not back]
        for index in held:
            del run.held[index]
        return gone + held

    def take_back(self, run: ActiveRun, index: int) -> bool:
        """The step is not to be called any more, though its undo is; False: it is not queued."""
        ticket = run.tickets.get(index)
        if ticket is not None and not ticket.payload[2]:
            self._withdraw(run.tickets.pop(index))
            return True
        return run.held.get(index) is False and not run.held.pop(index)

    def why(self, ticket: Ticket) -> Reason:
        """What it waits for."""
        missing = self.permitting.why(ticket) if self.permitting is not None else None
        return missing or self._admission.why(ticket)

    def _withdraw(self, ticket: Ticket) -> None:
        self._admission.withdraw(ticket)
        if self.permitting is not None:
            self.permitting.withdraw(ticket)

    def _finished(self, ticket: Ticket, seconds: float) -> None:
        self._admission.finished(ticket, seconds)
        if self.permitting is not None:
            self.permitting.finished(ticket)

    def admit(self) -> None:
        """Start whatever may go now; one decision for all that ends in this turn of the loop."""
        if not (self._admitting or self.closing):
            self._admitting = True
            self._loop.call_soon(self._admit)

    def _admit(self) -> None:
        self._admitting = False
        if self.closing:
            return
        for ticket in self._admission.admit():
            waited = self._loop.time() - ticket.queued
            for observer in self._observers:
                observer.step_admitted(ticket.priority, waited)
            self._launch(ticket)
        self._wake_when_due()

    def _wake_when_due(self) -> None:
        """A rate lets the next one pass at a known time."""
        if self._waking is not None:
            self._waking.cancel()
            self._waking = None
        due = self._admission.wake_at()
        if due is not None and not self.closing:
            self._waking = self._loop.call_at(max(due, self._loop.time()), self._woken)

    def _woken(self) -> None:
        self._waking = None
        self._admit()

    # calls

    def _launch(self, ticket: Ticket) -> None:
        """What was named to the journal before must be durable before the code runs."""
        run, index, undo = ticket.payload
        run.tickets.pop(index, None)
        row = run.execution.row(index)
        if undo:
            row.state, row.undo_attempts = StepState.UNDOING, row.undo_attempts + 1
            self._ledger.step(run, index)
            self._ledger.event(run, "undoing", run.name(index))
        else:
            row.state, row.attempts = StepState.RUNNING, row.attempts + 1
            row.started, row.error = row.started or self._ledger.now(), ""
        kind = self._caller.code(run, index).kind
        if kind == "at-most-once" and not undo:  # for the others it is implied
            self._record_start(run, index)
        call = partial(self._call, ticket)
        if kind == "transactional":
            call()  # it joins the transaction in which all this is recorded, or a later one
        elif kind == "idempotent" and not undo and self._ledger.journal.is_durable(ticket.after):
            call()
        else:
            self._ledger.journal.afterwards(call)

    def _call(self, ticket: Ticket) -> None:
        """What was before it is durable."""
        if self._may_begin(ticket):
            self._tasks.begin(ticket)

    def _may_begin(self, ticket: Ticket) -> bool:
        run, index, undo = ticket.payload
        if self.closing or run.abandoned:
            self._finished(ticket, 0.0)
        elif run.row.cause and not undo:  # it was stopped while this became durable
            self._finished(ticket, 0.0)
            self._concluded(run, index, undo, NotCalled("not called, for the run was stopped"))
        else:
            return True
        self.admit()
        return False

    async def _carry_out(self, ticket: Ticket, task: asyncio.Task[None]) -> None:
        if not self._may_begin(ticket):
            return
        run, index, undo = ticket.payload
        task.set_name(f"{run.id}/{ticket.step}")
        run.tasks[index] = task
        began, started = self._loop.time(), time.perf_counter()
        if not undo:
            self._mark_later(ticket, began)
        for observer in self._observers:
            observer.step_started(run.row, ticket.step, ticket.code)
        try:
            outcome = await self._outcome(ticket, task)
        finally:
            self._fresh.pop(ticket, None)
            run.tasks.pop(index, None)
        # The loop's clock may stand still until its next turn, and virtual time does not pass by itself.
        self._called(ticket, outcome, max(self._loop.time() - began, time.perf_counter() - started))

    async def _outcome(self, ticket: Ticket, task: asyncio.Task[None]) -> Outcome | None:
        """None: it was interrupted."""
        run, index, _ = ticket.payload
        try:
            outcome = await self._caller.call(ticket, partial(self._report, run, index))
            if task.cancelling():
                await asyncio.sleep(0)  # raises unless the step has had the interruption already
        except asyncio.CancelledError:
            return None
        except Exception as error:
            log.exception("flow.defect")
            return Failure(f"internal error: {message_of(error)}")
        # Also if its code made another error of it: a step that is taken up again has not failed.
        return None if self.closing and task.cancelling() and not isinstance(outcome, Success) else outcome

    def _called(self, ticket: Ticket, outcome: Outcome | None, took: float) -> None:
        run, index, undo = ticket.payload
        if self.closing and outcome is None:
            return
        if run.abandoned:
            self._finished(ticket, 0.0)
            self.admit()
            return
        self._finished(ticket, took)
        outcome = outcome or self._cancelled(run, index)
        for observer in self._observers:
            observer.step_ended(run.row, ticket.step, ticket.code, outcome.word, took)
        self._concluded(run, index, undo, outcome)
        self.admit()

    def _cancelled(self, run: ActiveRun, index: int) -> Outcome:
        if self._caller.at_most_once(run, index):
            return Doubt("cancelled while it ran; whether it had its effect is not known")
        return Failure("cancelled")

    def cancel(self, run: ActiveRun) -> None:
        """Interrupt what is under way, except what is inside a transaction."""
        for index, task in run.tasks.items():
            undoing = run.execution.row(index).state is StepState.UNDOING
            if not undoing and not self._caller.transactional(run, index):
                task.cancel()

    # what is shown of steps that run

    def _report(self, run: ActiveRun, index: int, message: str) -> None:
        """Steps may have threads of their own, and say what is no text."""
        message = str(message)
        if threading.get_ident() == self._home:
            self._progress(run, index, message)
        else:
            self._loop.call_soon_threadsafe(self._progress, run, index, message)

    def _progress(self, run: ActiveRun, index: int, message: str) -> None:
        row = run.execution.row(index)
        row.message = message
        if not self._caller.transactional(run, index):  # whose row is written by its own transaction
            self._ledger.step(run, index)
        self._ledger.event(run, "progress", run.name(index), message)

    def _record_start(self, run: ActiveRun, index: int) -> None:
        self._ledger.step(run, index)
        self._ledger.event(run, "started", run.name(index))

    def _mark_later(self, ticket: Ticket, began: float) -> None:
        self._fresh[ticket] = began + SHORT
        if self._marking is None:
            self._marking = self._loop.call_at(began + SHORT, self._mark)

    def _mark(self) -> None:
        """Record the start of those steps that still run.  One timer does for all."""
        now, fresh = self._loop.time(), self._fresh
        for ticket in [ticket for ticket, due in fresh.items() if due <= now]:
            del fresh[ticket]
            run, index, _ = ticket.payload
            running = run.execution.row(index).state is StepState.RUNNING
            if running and self._caller.code(run, index).kind == "idempotent":
                self._record_start(run, index)
        due = next(iter(fresh.values()), None)
        self._marking = None if due is None or self.closing else self._loop.call_at(due, self._mark)

    def drop(self) -> None:
        """Interrupt everything that is under way: its results would be refused."""
        for task in self.under_way:
            task.cancel()

    def close(self) -> None:
        self.closing = True
        for timer in (self._marking, self._waking):
            if timer is not None:
                timer.cancel()
