"""Turns a step of a run into a call: its environment, its arguments, its transaction."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from inspect import isawaitable
from typing import Any, Literal

from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow.admission.tickets import Ticket, Use
from skep.flow.definition.catalogue import Code
from skep.flow.definition.expressions import evaluate
from skep.flow.definition.plan import RetryPolicy
from skep.flow.errors import CommitFailed, PlaceGone
from skep.flow.execution.active import ActiveRun
from skep.flow.execution.attempt import (
    TRANSACTION_TIMEOUT,
    UNDO_TIMEOUT,
    Call,
    Disconnected,
    Failure,
    Gone,
    NotCalled,
    Outcome,
    Success,
    message_of,
)
from skep.flow.execution.ledger import Ledger
from skep.flow.execution.owning import own
from skep.flow.runs import StepState
from skep.flow.steps import Context
from skep.flow.storage import records
from skep.flow.storage.database import Database

_LOOK = 0.1
"""Seconds between two looks whether a transaction was committed; before the journal writes the step's row."""
Undo = Literal["run", "nothing", "in-doubt", "stuck"]


Dispatch = Callable[[Call], Awaitable[Outcome]]
"""How a call reaches its code."""


def at_once(call: Call) -> Awaitable[Outcome]:
    """Here and now."""
    return call()


class _Undone(Exception):
    """Takes back the transaction of a step that did not succeed."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__("the step did not succeed")
        self.outcome = outcome


class Caller:
    """Calls steps.  `environments(route)` answers what a step finds in `cx.env`, or an awaitable of it.

    It raises LookupError if nothing is there, PlaceGone if nothing ever will be again: then steps fail for
    good, and what they did there counts as undone.
    """

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        environments: Callable[[str], object],
        dispatch: Dispatch = at_once,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._environments = environments
        self._dispatch = dispatch

    def transactional(self, run: ActiveRun, index: int) -> bool:
        return self.code(run, index).kind == "transactional"

    def at_most_once(self, run: ActiveRun, index: int) -> bool:
        return self.code(run, index).kind == "at-most-once"

    def retry_policy(self, run: ActiveRun, index: int) -> RetryPolicy:
        """How often any error is forgiven; an at-most-once step has had its one chance."""
        planned = run.execution.planned(index)
        return planned.retry or RetryPolicy(self.code(run, index).step.retry)

    def timeout(self, run: ActiveRun, index: int) -> float | None:
        planned = run.execution.planned(index).timeout
        return self.code(run, index).step.timeout if planned is None else planned

    def ticket(self, run: ActiveRun, index: int, undo: bool) -> Ticket:
        """What the step counts against; an undo counts against no limit of its document.

        Raises whatever the evaluation of the route or of a key raises.
        """
        planned, row = run.execution.planned(index), run.row
        uses: tuple[Use, ...] = ()
        route = ""
        if planned.on is not None or planned.limits:
            lookup = run.execution.lookup(index)
            route = str(evaluate(planned.on, lookup)) if planned.on is not None else ""
            if planned.limits and not undo:
                uses = tuple(
                    Use(str(evaluate(limit.key, lookup)), limit.concurrency, limit.rate, limit.burst)
                    for limit in planned.limits
                )
        code = f"undo:{planned.use}" if undo else planned.use
        priority = row.priority if planned.priority is None else planned.priority
        name = run.execution.name(index)
        return Ticket(row.id, name, row.tenant, row.flow, code, route, priority, (run, index, undo), uses)

    def undo_of(self, run: ActiveRun, index: int) -> Undo:
        """What undoing the step takes, by what is known of it.

        A transaction that was not seen to commit did not happen.  An at-most-once step that may have happened
        and cannot be undone is for a person to judge.
        """
        if not run.execution.planned(index).use or run.execution.planned(index).each:
            return "nothing"  # a wait or a fan-out: its items are undone on their own
        row, code = run.execution.row(index), self.code(run, index)
        if row.state is StepState.NEEDS_OPERATOR and row.undo_attempts:
            return "stuck"
        if row.attempts == 0 and row.state in (StepState.FAILED, StepState.RETRYING, StepState.SKIPPED):
            return "nothing"  # no attempt ever reached its code
        if code.step.undo_do is None:
            unsure = row.state in (StepState.NEEDS_OPERATOR, StepState.RUNNING)
            return "in-doubt" if unsure and code.kind == "at-most-once" else "nothing"
        begun = (StepState.RUNNING, StepState.RETRYING, StepState.FAILED)
        return "nothing" if code.kind == "transactional" and row.state in begun else "run"

    async def call(self, ticket: Ticket, report: Callable[[str], None]) -> Outcome:
        """Call the step or its undo.  Never raises, except when cancelled."""
        run, index, undo = ticket.payload
        try:
            call = await self._prepare(run, index, undo, ticket, report)
        except PlaceGone as error:
            if not undo:
                return Gone(message_of(error))
            report(f"{message_of(error)} Nothing is left to undo there.")
            return Success(None, b"null")
        except Exception as error:
            return NotCalled(message_of(error))
        if call.code.kind == "transactional":
            return await self._in_transaction(run, index, call)
        return await self._dispatch(call)

    async def _prepare(
        self, run: ActiveRun, index: int, undo: bool, ticket: Ticket, report: Callable[[str], None]
    ) -> Call:
        planned, code, lookup = (
            run.execution.planned(index),
            self.code(run, index),
            run.execution.lookup(index),
        )
        row = run.execution.row(index)
        env = self._environments(ticket.route)
        context: Context[Any] = Context(
            env=await env if isawaitable(env) else env,
            run=run.id,
            step=ticket.step,
            attempt=row.undo_attempts if undo else row.attempts,
            epoch=run.row.epoch,
            undoing=undo,
            report=report,
            round=run.row.round,
        )
        arguments = {
            name: own(evaluate(value, lookup), code.parameters[name])
            for name, value in planned.arguments.items()
        }
        limit = planned.timeout or code.step.timeout
        if limit is None:  # a transaction and an undo always have a limit, for others wait for them
            limit = TRANSACTION_TIMEOUT if code.kind == "transactional" else UNDO_TIMEOUT if undo else None
        return Call(code, context, arguments, limit)

    async def _in_transaction(self, run: ActiveRun, index: int, call: Call) -> Outcome:
        """The step's writes and the record of its result in one savepoint: both or neither."""

        async def change(connection: AsyncConnection) -> Outcome:
            self._ledger.journal.require_order()
            context = replace(call.context, connection=connection)
            outcome = await _apart(replace(call, context=context))
            if not isinstance(outcome, Success):
                raise _Undone(outcome)
            row = run.execution.row(index)
            done = replace(row, state=StepState.UNDONE)
            if not call.context.undoing:
                done = replace(
                    row, state=StepState.SUCCEEDED, result=outcome.stored, finished=self._ledger.now()
                )
            await self._ledger.journal.write_step(connection, run.id, call.context.step, done)
            return outcome

        try:
            return await self._database.submit(change)
        except _Undone as undone:
            return undone.outcome
        except CommitFailed as error:
            return await self._committed(run, call) or Disconnected(str(error))
        except Exception as error:
            return Failure(message_of(error))

    async def _committed(self, run: ActiveRun, call: Call) -> Success | None:
        """What the call came to if it was committed after all: a connection may break at the very end."""
        look = partial(records.outcome_of, identifier=run.id, step=call.context.step)
        while not run.abandoned:
            try:
                state, stored = await self._database.write(look) or (None, None)
            except CommitFailed:
                await asyncio.sleep(_LOOK)
                continue
            if call.context.undoing:
                return Success(None, b"null") if state is StepState.UNDONE else None
            if state is not StepState.SUCCEEDED or stored is None:
                return None
            return Success(call.code.decode(stored), stored)
        return None

    def code(self, run: ActiveRun, index: int) -> Code:
        if run.bound is None:
            raise RuntimeError("a run that could not be loaded has no code")
        return run.bound.code(run.execution.planned(index))


async def _apart(call: Call) -> Outcome:
    """In a task of its own: a step that cancels itself must not cancel the database's writer."""
    task = asyncio.create_task(call(), name=f"{call.context.run}/{call.context.step}")
    try:
        await asyncio.wait([task])
    finally:
        task.cancel()
    return Failure("cancelled") if task.cancelled() else task.result()
