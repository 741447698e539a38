"""Unfinished runs as the tables have them, with all that it takes to go on."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Row, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow.runs import Claim, RunRow, RunState, Signal, StepRow, StepState, StoredRun
from skep.flow.steps import RunId
from skep.flow.storage import blobs, tables

T = TypeVar("T")
_AT_ONCE = 500
_runs, _steps, _events, _signals = tables.runs.c, tables.steps.c, tables.events.c, tables.signals.c
_STEP_COLUMNS = (
    _steps.run,
    _steps.step,
    _steps.state,
    _steps.attempts,
    _steps.undo_attempts,
    _steps.result,
    _steps.blob,
    _steps.error,
    _steps.message,
    _steps.started,
    _steps.finished,
)
_STATES = {state.value: state for state in StepState}


async def load(connection: AsyncConnection, runs: Sequence[RunId]) -> list[StoredRun]:
    """These runs, in this order, each with its steps, untaken signals and the number of its last event."""
    stored: dict[str, StoredRun] = {}
    for some in slices(runs):
        stored |= await _load(connection, some)
    return [stored[run] for run in runs if run in stored]


async def _load(connection: AsyncConnection, runs: Sequence[RunId]) -> dict[str, StoredRun]:
    query = (
        select(tables.runs, tables.definitions.c.content)
        .join(tables.definitions, _runs.definition == tables.definitions.c.hash)
        .where(_runs.id.in_(runs))
    )
    stored = {found.id: _stored(found) for found in await connection.execute(query)}
    for run, step, state, *values in await connection.execute(
        select(*_STEP_COLUMNS).where(_steps.run.in_(runs))
    ):
        stored[run].steps[step] = StepRow(_STATES[state], *values)
    await blobs.fill(connection, (row for item in stored.values() for row in item.steps.values()))
    for found in await connection.execute(
        select(tables.signals)
        .where(_signals.run.in_(runs), _signals.step.is_(None))
        .order_by(_signals.at, _signals.id)
    ):
        stored[found.run].signals.append(signal_of(found))
    last = select(_events.run, func.max(_events.sequence)).where(_events.run.in_(runs)).group_by(_events.run)
    for run, sequence in await connection.execute(last):
        stored[run].sequence = sequence
    return stored


def signal_of(found: Row[Any]) -> Signal:
    return Signal(id=found.id, name=found.name, body=found.body, by=found.by, at=found.at, step=found.step)


def _stored(found: Row[Any]) -> StoredRun:
    """The columns of the table bear the names of the fields."""
    values = found._asdict()
    content = values.pop("content")
    values["labels"] = msgspec.json.decode(found.labels, type=dict[str, str])
    values["locks"] = msgspec.json.decode(found.locks, type=tuple[Claim, ...])
    values["state"] = RunState(found.state)
    return StoredRun(RunRow(**values), content)


def slices(items: Sequence[T]) -> Iterator[list[T]]:
    """In pieces that fit a statement: drivers allow some 32,000 values."""
    rest = iter(items)
    while some := list(islice(rest, _AT_ONCE)):
        yield some
