"""Reads runs, steps and histories back from the tables."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Row, Select, case, exists, func, literal, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow.definition.plan import Plan
from skep.flow.runs import (
    Priority,
    RunEvent,
    RunFilter,
    RunRecord,
    RunState,
    StepRecord,
    StepRow,
    StepState,
    moment,
)
from skep.flow.steps import RunId
from skep.flow.storage import blobs, listing, tables

_DONE = [StepState.SUCCEEDED.value, StepState.SKIPPED.value]
_runs, _steps, _events, _labels = tables.runs.c, tables.steps.c, tables.events.c, tables.labels.c


async def run(connection: AsyncConnection, identifier: RunId) -> RunRecord | None:
    found = (await connection.execute(_select_runs().where(_runs.id == identifier))).first()
    return None if found is None else _run_record(found)


async def runs(
    connection: AsyncConnection, where: RunFilter, *, limit: int, before: RunId | None = None
) -> list[RunRecord]:
    """Newest first; `before`: only those older than this one."""
    query = _select_runs().where(*_conditions(where)).order_by(_runs.id.desc()).limit(limit)
    if before is not None:
        query = query.where(_runs.id < before)
    return [_run_record(found) for found in await connection.execute(query)]


async def select_ids(connection: AsyncConnection, where: RunFilter, limit: int) -> list[RunId]:
    """Newest first."""
    query = select(_runs.id).where(*_conditions(where)).order_by(_runs.id.desc()).limit(limit)
    return [RunId(found) for found in (await connection.execute(query)).scalars()]


async def by_key(connection: AsyncConnection, tenant: str, key: str) -> RunId | None:
    query = select(_runs.id).where(_runs.tenant == tenant, _runs.key == key)
    return (await connection.execute(query)).scalar()


async def steps(
    connection: AsyncConnection, identifier: RunId, *, limit: int | None = None, offset: int = 0
) -> list[StepRecord] | None:
    """The steps of the run's flow in topological order; None if there is no such run.

    Those of the items of a fan-out follow it in the order of the items, as far as they have begun.  Of a run
    with very many steps ask for a page: `limit` of them, from number `offset` on.
    """
    plan = await plan_of(connection, identifier)
    if plan is None:
        return None
    rows = await _progress_of(connection, identifier)
    entries = listing.entries(plan, rows)[offset:]
    return [step_record(entry, rows.get(entry.name)) for entry in entries[:limit]]


async def plan_of(connection: AsyncConnection, identifier: RunId) -> Plan | None:
    """The definition of the run, as it was stored with it."""
    query = (
        select(tables.definitions.c.content)
        .join(tables.runs, _runs.definition == tables.definitions.c.hash)
        .where(_runs.id == identifier)
    )
    content = (await connection.execute(query)).scalar()
    return None if content is None else msgspec.json.decode(content, type=Plan)


async def result_of(connection: AsyncConnection, identifier: RunId, step: str) -> bytes | None:
    """What the step returned, as JSON, however large; None if it has returned nothing yet."""
    query = select(_steps.result, _steps.blob).where(_steps.run == identifier, _steps.step == step)
    found = (await connection.execute(query)).first()
    if found is None:
        return None
    result: bytes | None = found.result
    return result if found.blob is None else await blobs.content_of(connection, found.blob)


async def outcome_of(
    connection: AsyncConnection, identifier: RunId, step: str
) -> tuple[StepState, bytes | None] | None:
    """The step's state and, however large, what it returned as JSON; None if nothing is recorded of it."""
    query = select(_steps.state).where(_steps.run == identifier, _steps.step == step)
    state = (await connection.execute(query)).scalar()
    return None if state is None else (StepState(state), await result_of(connection, identifier, step))


async def history(
    connection: AsyncConnection, identifier: RunId, after: int, limit: int | None = None
) -> list[RunEvent]:
    query = (
        select(tables.events)
        .where(_events.run == identifier, _events.sequence > after)
        .order_by(_events.sequence)
        .limit(limit)
    )
    return [
        RunEvent(
            sequence=found.sequence,
            run=RunId(found.run),
            step=found.step,
            kind=found.kind,
            at=datetime.fromtimestamp(found.at, UTC),
            message=found.message,
        )
        for found in await connection.execute(query)
    ]


def _conditions(where: RunFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if where.tenant is not None:
        found.append(_runs.tenant == where.tenant)
    if where.flow is not None:
        found.append(_runs.flow == where.flow)
    if where.states:
        found.append(_runs.state.in_([state.value for state in where.states]))
    if where.active is not None:
        found.append(_runs.finished.is_(None) if where.active else _runs.finished.is_not(None))
    if where.created_after is not None:
        found.append(_runs.created > where.created_after.timestamp())
    if where.created_before is not None:
        found.append(_runs.created < where.created_before.timestamp())
    if where.failed_step is not None:
        found.append(_has_failed(where.failed_step))
    for key, value in where.labels.items():
        label = (_labels.run == _runs.id, _labels.key == key, _labels.value == value)
        found.append(exists().where(*label))
    return found


def _has_failed(step: str) -> ColumnElement[bool]:
    """The step, or one of its items, failed for good; it may have been undone since."""
    named = or_(_steps.step == step, _steps.step.startswith(f"{step}[", autoescape=True))
    failed = or_(_steps.state == StepState.FAILED.value, _steps.error != "")
    return exists().where(_steps.run == _runs.id, named, failed)


def _select_runs() -> Select[Any]:
    """Of a run that has succeeded all steps are done: those of a large one need not be counted again."""
    counted = (
        select(func.count())
        .where(_steps.run == _runs.id, _steps.state.in_(_DONE))
        .correlate(tables.runs)
        .scalar_subquery()
    )
    done = case((_runs.state == RunState.SUCCEEDED.value, literal(-1)), else_=counted)
    return select(tables.runs, done.label("done"))


def _run_record(found: Row[Any]) -> RunRecord:
    return RunRecord(
        id=RunId(found.id),
        flow=found.flow,
        title=found.title,
        tenant=found.tenant,
        labels=msgspec.json.decode(found.labels, type=dict[str, str]),
        state=RunState(found.state),
        done=found.total if found.done < 0 else found.done,
        total=max(found.total, found.done),
        input=msgspec.json.decode(found.input),
        output=msgspec.json.decode(found.output),
        error=found.error,
        priority=Priority(found.priority),
        worker=found.worker or "",
        deadline=moment(found.deadline),
        parent=found.parent,
        created=datetime.fromtimestamp(found.created, UTC),
        started=moment(found.started),
        finished=moment(found.finished),
    )


async def _progress_of(connection: AsyncConnection, identifier: RunId) -> dict[str, StepRow]:
    """The rows of all steps without their results, which may be large."""
    query = select(
        *(_steps.step, _steps.state, _steps.attempts, _steps.error, _steps.message),
        *(_steps.started, _steps.finished),
    ).where(_steps.run == identifier)
    return {
        name: StepRow(
            state=StepState(state),
            attempts=attempts,
            error=error,
            message=message,
            started=started,
            finished=finished,
        )
        for name, state, attempts, error, message, started, finished in await connection.execute(query)
    }


def step_record(entry: listing.Entry, row: StepRow | None) -> StepRecord:
    """A step that failed and was undone is shown as failed: that is what a person looks for."""
    row = row or StepRow(state=StepState.PENDING)
    return StepRecord(
        name=entry.name,
        use=entry.use,
        after=entry.after,
        state=StepState.FAILED if row.state is StepState.UNDONE and row.error else row.state,
        attempts=row.attempts,
        started=moment(row.started),
        finished=moment(row.finished),
        message=row.message,
    )
