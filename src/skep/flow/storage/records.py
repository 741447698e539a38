"""Reads runs, steps and histories back from the tables."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Row, Select, exists, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow.definition.expressions import evaluate
from skep.flow.definition.plan import Plan
from skep.flow.execution.execution import Execution
from skep.flow.runs import (
    Claim,
    Priority,
    RunEvent,
    RunRecord,
    RunRow,
    RunState,
    StepRecord,
    StepRow,
    StepState,
    StoredRun,
    moment,
)
from skep.flow.steps import RunId
from skep.flow.storage import tables

_DONE = [StepState.SUCCEEDED.value, StepState.SKIPPED.value]
_runs, _steps, _events = tables.runs.c, tables.steps.c, tables.events.c


def output_of(execution: Execution) -> bytes:
    """The output of a run that has succeeded, as JSON."""
    output = execution.graph.plan.output
    return msgspec.json.encode({name: evaluate(value, execution.lookup) for name, value in output.items()})


async def run(connection: AsyncConnection, identifier: RunId) -> RunRecord | None:
    found = (await connection.execute(_select_runs().where(_runs.id == identifier))).first()
    return None if found is None else _run_record(found)


async def runs(
    connection: AsyncConnection,
    *,
    tenant: str | None,
    labels: Mapping[str, str],
    active: bool | None,
    limit: int,
    before: RunId | None,
) -> list[RunRecord]:
    """Newest first; `before`: only those older than this one."""
    query = _select_runs().order_by(_runs.id.desc()).limit(limit)
    if tenant is not None:
        query = query.where(_runs.tenant == tenant)
    if active is not None:
        query = query.where(_runs.finished.is_(None) if active else _runs.finished.is_not(None))
    if before is not None:
        query = query.where(_runs.id < before)
    for key, value in labels.items():
        label = tables.labels.c
        query = query.where(exists().where(label.run == _runs.id, label.key == key, label.value == value))
    return [_run_record(found) for found in await connection.execute(query)]


async def by_key(connection: AsyncConnection, tenant: str, key: str) -> RunId | None:
    query = select(_runs.id).where(_runs.tenant == tenant, _runs.key == key)
    return (await connection.execute(query)).scalar()


async def steps(connection: AsyncConnection, identifier: RunId) -> list[StepRecord] | None:
    """All steps of the run's flow in topological order; None if there is no such run."""
    content = (
        await connection.execute(
            select(tables.definitions.c.content)
            .join(tables.runs, _runs.definition == tables.definitions.c.hash)
            .where(_runs.id == identifier)
        )
    ).scalar()
    if content is None:
        return None
    rows = {name: row for _, name, row in await _step_rows(connection, _steps.run == identifier)}
    plan = msgspec.json.decode(content, type=Plan)
    return [
        StepRecord(
            name=step.name,
            use=step.use,
            after=tuple(plan.steps[index].name for index in step.after),
            **_progress(rows.get(step.name)),
        )
        for step in plan.steps
    ]


async def history(connection: AsyncConnection, identifier: RunId, after: int) -> list[RunEvent]:
    query = (
        select(tables.events)
        .where(_events.run == identifier, _events.sequence > after)
        .order_by(_events.sequence)
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


async def unfinished(connection: AsyncConnection) -> list[StoredRun]:
    """Every run that has not ended, oldest first, with the rows of its steps."""
    query = (
        select(tables.runs, tables.definitions.c.content)
        .join(tables.definitions, _runs.definition == tables.definitions.c.hash)
        .where(_runs.finished.is_(None))
        .order_by(_runs.id)
    )
    stored = {
        found.id: StoredRun(_run_row(found), found.content) for found in await connection.execute(query)
    }
    unended = select(_runs.id).where(_runs.finished.is_(None)).scalar_subquery()
    for identifier, name, row in await _step_rows(connection, _steps.run.in_(unended)):
        stored[identifier].steps[name] = row
    last = (
        select(_events.run, func.max(_events.sequence)).where(_events.run.in_(unended)).group_by(_events.run)
    )
    for identifier, sequence in await connection.execute(last):
        stored[identifier].sequence = sequence
    return list(stored.values())


def _select_runs() -> Select[Any]:
    done = (
        select(func.count())
        .where(_steps.run == _runs.id, _steps.state.in_(_DONE))
        .correlate(tables.runs)
        .scalar_subquery()
    )
    return select(tables.runs, done.label("done"))


def _run_record(found: Row[Any]) -> RunRecord:
    return RunRecord(
        id=RunId(found.id),
        flow=found.flow,
        title=found.title,
        tenant=found.tenant,
        labels=msgspec.json.decode(found.labels, type=dict[str, str]),
        state=RunState(found.state),
        done=found.done,
        total=found.total,
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


def _run_row(found: Row[Any]) -> RunRow:
    return RunRow(
        id=RunId(found.id),
        flow=found.flow,
        definition=found.definition,
        title=found.title,
        tenant=found.tenant,
        labels=msgspec.json.decode(found.labels, type=dict[str, str]),
        key=found.key,
        input=found.input,
        locks=msgspec.json.decode(found.locks, type=tuple[Claim, ...]),
        total=found.total,
        created=found.created,
        parent=found.parent,
        priority=found.priority,
        deadline=found.deadline,
        state=RunState(found.state),
        cause=found.cause,
        error=found.error,
        output=found.output,
        epoch=found.epoch,
        round=found.round,
        crashes=found.crashes,
        paused=found.paused,
        worker=found.worker,
        started=found.started,
        finished=found.finished,
    )


async def _step_rows(connection: AsyncConnection, where: Any) -> Sequence[tuple[RunId, str, StepRow]]:
    return [
        (
            RunId(found.run),
            found.step,
            StepRow(
                state=StepState(found.state),
                attempts=found.attempts,
                undo_attempts=found.undo_attempts,
                result=found.result,
                blob=found.blob,
                error=found.error,
                message=found.message,
                started=found.started,
                finished=found.finished,
            ),
        )
        for found in await connection.execute(select(tables.steps).where(where))
    ]


def _progress(row: StepRow | None) -> dict[str, Any]:
    """A step that failed and was undone is shown as failed: that is what a person looks for."""
    if row is None:
        return {"state": StepState.PENDING, "attempts": 0, "started": None, "finished": None, "message": ""}
    return {
        "state": StepState.FAILED if row.state is StepState.UNDONE and row.error else row.state,
        "attempts": row.attempts,
        "started": moment(row.started),
        "finished": moment(row.finished),
        "message": row.message,
    }
