"""Turns a step of a run into a call: its environment, its arguments, its transaction."""

import asyncio
import dataclasses
import threading
from collections.abc import Callable
from typing import Any, Literal

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow.definition.catalogue import Code
from skep.flow.definition.expressions import evaluate
from skep.flow.definition.plan import PlannedStep
from skep.flow.errors import CommitFailed
from skep.flow.execution.active import ActiveRun
from skep.flow.execution.attempt import (
    TRANSACTION_TIMEOUT,
    UNDO_TIMEOUT,
    Call,
    Disconnected,
    Failure,
    NotCalled,
    Outcome,
    Success,
    message_of,
)
from skep.flow.runs import StepState
from skep.flow.steps import Context
from skep.flow.storage.database import Database
from skep.flow.storage.journal import Journal

Undo = Literal["run", "nothing", "in-doubt", "stuck"]


class _Undone(Exception):
    """Takes back the transaction of a step that did not succeed."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__("the step did not succeed")
        self.outcome = outcome


class Caller:
    """Calls steps.  `environments(route)` answers what a step finds in `cx.env`, or raises LookupError."""

    def __init__(
        self,
        database: Database,
        journal: Journal,
        environments: Callable[[str], object],
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._journal = journal
        self._environments = environments
        self._clock = clock

    def transactional(self, run: ActiveRun, index: int) -> bool:
        return self._code(run, index).kind == "transactional"

    in_transaction = transactional

    def at_most_once(self, run: ActiveRun, index: int) -> bool:
        return self._code(run, index).kind == "at-most-once"

    def retries(self, run: ActiveRun, index: int) -> int:
        """How often any error is forgiven; an at-most-once step has had its one chance."""
        planned = self._planned(run, index).retry
        return self._code(run, index).step.retry if planned is None else planned.times

    def timeout(self, run: ActiveRun, index: int) -> float | None:
        planned = self._planned(run, index).timeout
        return self._code(run, index).step.timeout if planned is None else planned

    def undo_of(self, run: ActiveRun, index: int) -> Undo:
        """What undoing the step takes, by what is known of it.

        A transaction that was not seen to commit did not happen.  An at-most-once step that may have happened
        and cannot be undone is for a person to judge.
        """
        row, code = run.execution.row(index), self._code(run, index)
        if row.state is StepState.NEEDS_OPERATOR and row.undo_attempts:
            return "stuck"
        if row.attempts == 0 and row.state in (StepState.FAILED, StepState.RETRYING):
            return "nothing"  # no attempt ever reached its code
        if code.step.undo_do is None:
            unsure = row.state in (StepState.NEEDS_OPERATOR, StepState.RUNNING)
            return "in-doubt" if unsure and code.kind == "at-most-once" else "nothing"
        begun = (StepState.RUNNING, StepState.RETRYING, StepState.FAILED)
        return "nothing" if code.kind == "transactional" and row.state in begun else "run"

    async def call(self, run: ActiveRun, index: int, undo: bool, report: Callable[[str], None]) -> Outcome:
        """Call the step or its undo.  Never raises, except when cancelled."""
        try:
            call = self._prepare(run, index, undo, report)
        except Exception as error:
            return NotCalled(message_of(error))
        if self.transactional(run, index):
            return await self._in_transaction(run, index, call)
        return await call()

    def _prepare(self, run: ActiveRun, index: int, undo: bool, report: Callable[[str], None]) -> Call:
        planned, code, lookup = self._planned(run, index), self._code(run, index), run.execution.lookup
        route = str(evaluate(planned.on, lookup)) if planned.on is not None else ""
        row = run.execution.row(index)
        context: Context[Any] = Context(
            env=self._environments(route),
            run=run.id,
            step=planned.name,
            attempt=row.undo_attempts if undo else row.attempts,
            epoch=run.row.epoch,
            undoing=undo,
            report=_in_this_thread(report),
        )
        arguments = {
            name: msgspec.convert(evaluate(value, lookup), code.parameters[name])
            for name, value in planned.arguments.items()
        }
        return Call(code, context, arguments, self._limit(run, index, undo))

    def _limit(self, run: ActiveRun, index: int, undo: bool) -> float | None:
        """Seconds; a transaction and an undo always have a limit, for others wait for them."""
        given = self.timeout(run, index)
        if given is not None:
            return given
        if self.transactional(run, index):
            return TRANSACTION_TIMEOUT
        return UNDO_TIMEOUT if undo else None

    async def _in_transaction(self, run: ActiveRun, index: int, call: Call) -> Outcome:
        """The step's writes and the record of its result in one savepoint: both or neither."""

        async def change(connection: AsyncConnection) -> Outcome:
            self._journal.require_order()
            outcome = await dataclasses.replace(
                call, context=dataclasses.replace(call.context, connection=connection)
            )()
            if not isinstance(outcome, Success):
                raise _Undone(outcome)
            row = run.execution.row(index)
            done = dataclasses.replace(row, state=StepState.UNDONE)
            if not call.context.undoing:
                done = dataclasses.replace(
                    row, state=StepState.SUCCEEDED, result=outcome.stored, finished=self._clock()
                )
            await self._journal.write_step(connection, run.id, call.context.step, done)
            return outcome

        try:
            return await self._database.submit(change)
        except _Undone as undone:
            return undone.outcome
        except CommitFailed as error:
            return Disconnected(str(error))
        except Exception as error:
            return Failure(message_of(error))

    def _planned(self, run: ActiveRun, index: int) -> PlannedStep:
        return run.execution.graph.plan.steps[index]

    def _code(self, run: ActiveRun, index: int) -> Code:
        if run.bound is None:
            raise RuntimeError("a run that could not be loaded has no code")
        return run.bound.codes[index]


def _in_this_thread(report: Callable[[str], None]) -> Callable[[str], None]:
    """The same, also callable from the threads that a step may start."""
    loop, home = asyncio.get_running_loop(), threading.get_ident()

    def call(message: str) -> None:
        if threading.get_ident() == home:
            report(message)
        else:
            loop.call_soon_threadsafe(report, message)

    return call
