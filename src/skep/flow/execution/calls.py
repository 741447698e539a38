"""Calls of code: each asks for admission, begins once what was before it is durable, and has an outcome."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
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
        self.under_way: set[asyncio.Task[Outcome]] = set()
        self._ledger = ledger
        self._caller = caller
        self._admission = admission
        self._observers = observers
        self._concluded = concluded
        self.permitting: Permitting | None = None
        """Where several workers share the database."""
        self._home = threading.get_ident()
        self._fresh: deque[tuple[float, ActiveRun, int, int]] = deque()
        self._marking: asyncio.TimerHandle | None = None
        self._waking: asyncio.TimerHandle | None = None

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
        run.tickets[index] = ticket
        if self.permitting is None or not self.permitting.takes(ticket):
            self.submit(ticket)

    def submit(self, ticket: Ticket) -> None:
        """It has its permits, or needs none."""
        if not self.closing and self._admission.submit(ticket):
            self._launch(ticket)
            return
        ticket.queued = asyncio.get_running_loop().time()
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
        """Start whatever may go now."""
        if self.closing:
            return
        for ticket in self._admission.admit():
            waited = asyncio.get_running_loop().time() - ticket.queued
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
            loop = asyncio.get_running_loop()
            self._waking = loop.call_at(max(due, loop.time()), self._woken)

    def _woken(self) -> None:
        self._waking = None
        self.admit()

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
        else:
            self._ledger.journal.afterwards(call)

    def _call(self, ticket: Ticket) -> None:
        run, index, undo = ticket.payload
        if self.closing or run.abandoned:
            self._finished(ticket, 0.0)
            self.admit()
            return
        if run.row.cause and not undo:  # it was stopped while this became durable
            self._finished(ticket, 0.0)
            self._concluded(run, index, undo, NotCalled("not called, for the run was stopped"))
            self.admit()
            return
        loop = asyncio.get_running_loop()
        began = loop.time()
        task = loop.create_task(
            self._caller.call(ticket, partial(self._report, loop, run, index)),
            name=f"{run.id}/{ticket.step}",
        )
        run.tasks[index] = task
        self.under_way.add(task)
        task.add_done_callback(partial(self._called, ticket, began))
        if not undo:
            self._mark_later(began, run, index)
        for observer in self._observers:
            observer.step_started(run.row, ticket.step, ticket.code)

    def _called(self, ticket: Ticket, began: float, task: asyncio.Task[Outcome]) -> None:
        run, index, undo = ticket.payload
        self.under_way.discard(task)
        run.tasks.pop(index, None)
        if self.closing and _interrupted(task):
            return
        if run.abandoned:
            self._finished(ticket, 0.0)
            self.admit()
            return
        took = task.get_loop().time() - began
        self._finished(ticket, took)
        outcome = self._cancelled(run, index) if task.cancelled() else _result(task)
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

    def _report(self, loop: asyncio.AbstractEventLoop, run: ActiveRun, index: int, message: str) -> None:
        """Steps may have threads of their own, and say what is no text."""
        message = str(message)
        if threading.get_ident() == self._home:
            self._progress(run, index, message)
        else:
            loop.call_soon_threadsafe(self._progress, run, index, message)

    def _progress(self, run: ActiveRun, index: int, message: str) -> None:
        row = run.execution.row(index)
        row.message = message
        if not self._caller.transactional(run, index):  # whose row is written by its own transaction
            self._ledger.step(run, index)
        self._ledger.event(run, "progress", run.name(index), message)

    def _record_start(self, run: ActiveRun, index: int) -> None:
        self._ledger.step(run, index)
        self._ledger.event(run, "started", run.name(index))

    def _mark_later(self, began: float, run: ActiveRun, index: int) -> None:
        self._fresh.append((began + SHORT, run, index, run.execution.row(index).attempts))
        if self._marking is None:
            self._marking = asyncio.get_running_loop().call_at(began + SHORT, self._mark)

    def _mark(self) -> None:
        """Record the start of those steps that still run.  One timer does for all."""
        loop, fresh = asyncio.get_running_loop(), self._fresh
        while fresh and fresh[0][0] <= loop.time():
            _, run, index, attempt = fresh.popleft()
            row = run.execution.rows[index]
            if index not in run.tasks or row is None or row.state is not StepState.RUNNING:
                continue
            if row.attempts == attempt and self._caller.code(run, index).kind == "idempotent":
                self._record_start(run, index)
        self._marking = loop.call_at(fresh[0][0], self._mark) if fresh and not self.closing else None

    def drop(self) -> None:
        """Interrupt everything that is under way: its results would be refused."""
        for task in self.under_way:
            task.cancel()

    def close(self) -> None:
        self.closing = True
        for timer in (self._marking, self._waking):
            if timer is not None:
                timer.cancel()


def _interrupted(task: asyncio.Task[Outcome]) -> bool:
    """Also if its code made another error of it: a step that is taken up again has not failed."""
    if task.cancelled():
        return True
    return bool(task.cancelling()) and (
        task.exception() is not None or not isinstance(task.result(), Success)
    )


def _result(task: asyncio.Task[Outcome]) -> Outcome:
    error = task.exception()
    if error is None:
        return task.result()
    log.error("flow.defect", exc_info=error)
    return Failure(f"internal error: {message_of(error)}")
