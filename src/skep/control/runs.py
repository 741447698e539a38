"""Runs: how a change goes on, and what to do when it needs somebody."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Literal

from skep.control import facts
from skep.control.callers import Caller, Role
from skep.control.clock import rfc3339
from skep.flow import Database, FlowEngine, RunEvent, RunId, RunRecord, StepRecord, WrongState
from skep.model.errors import Conflict, NotFound
from skep.model.views import RunDetail, RunEventView, RunView, StepView
from skep.store import tenants


class Runs:
    def __init__(self, database: Database, flows: FlowEngine) -> None:
        self._database = database
        self._flows = flows

    async def show(self, caller: Caller, run: str) -> RunDetail:
        record = await self._find(caller, run)
        steps = await self._flows.steps(record.id)
        return RunDetail(run=await self._view(record), steps=tuple(_step(step) for step in steps))

    async def follow(self, caller: Caller, run: str) -> AsyncIterator[RunEventView]:
        """The whole history, then what happens, until the run has ended."""
        record = await self._find(caller, run)
        async for event in self._flows.follow(record.id):
            yield _event(event)

    async def cancel(self, caller: Caller, run: str) -> None:
        """Stop the run and undo what it did.  Raises Conflict: it has ended."""
        caller.must_change()
        record = await self._find(caller, run)
        with _conflicts():
            await self._flows.cancel(record.id)

    async def resolve(
        self, caller: Caller, run: str, step: str, choice: Literal["retry", "skip", "mark-undone"]
    ) -> None:
        """Decide for a run that needs an operator; kept in its history with the caller's name.

        Raises Conflict: the step does not wait for a decision, or this one is impossible.
        """
        caller.must_operate()
        record = await self._find(caller, run)
        with _conflicts():
            await self._flows.resolve(record.id, step, choice, by=caller.user_name)

    async def list(
        self, caller: Caller, *, app: str | None = None, active: bool = False, limit: int = 50
    ) -> list[RunView]:
        """Newest first."""
        labels = {}
        if app is not None:
            async with self._database.read() as connection:
                labels["app"] = (await facts.load_app(connection, caller.tenant, app)).app.id
        found = await self._flows.list(
            tenant=caller.tenant, labels=labels, active=active or None, limit=min(limit, 1000)
        )
        return [await self._view(run) for run in found]

    async def _find(self, caller: Caller, run: str) -> RunRecord:
        try:
            record = await self._flows.get(RunId(run))
        except LookupError as error:
            raise NotFound(f"There is no run {run!r}; see 'skep run ls'.") from error
        if not caller.sees(record.tenant) and caller.role is not Role.ADMIN:
            raise NotFound(f"There is no run {run!r}; see 'skep run ls'.")
        return record

    async def _view(self, run: RunRecord) -> RunView:
        async with self._database.read() as connection:
            tenant = await tenants.get(connection, run.tenant)  # type: ignore[arg-type]
        return RunView(
            id=run.id,
            flow=run.flow,
            title=run.title,
            tenant=tenant.name if tenant else "",
            state=run.state.value,
            done=run.done,
            total=run.total,
            error=run.error or "",
            created=rfc3339(run.created),
            started=rfc3339(run.started),
            finished=rfc3339(run.finished),
            output=run.output or {},
        )


@contextmanager
def _conflicts() -> Iterator[None]:
    """The engine's word for what cannot be done in this state, as the caller's."""
    try:
        yield
    except WrongState as error:
        raise Conflict(f"{error.message[:1].upper()}{error.message[1:]}.") from error


def _step(step: StepRecord) -> StepView:
    return StepView(
        name=step.name,
        use=step.use,
        state=step.state.value,
        after=tuple(step.after),
        attempts=step.attempts,
        started=rfc3339(step.started),
        finished=rfc3339(step.finished),
        message=step.message or "",
    )


def _event(event: RunEvent) -> RunEventView:
    return RunEventView(
        sequence=event.sequence,
        run=event.run,
        step=event.step,
        kind=event.kind,
        at=rfc3339(event.at),
        message=event.message,
    )
