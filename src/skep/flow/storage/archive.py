"""Runs that ended long ago, each one compressed row: the run, its steps, its signals and its history.

What the steps returned is not kept, only what the run did (`RunRecord.output`).
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import zstandard
from msgspec import Struct
from sqlalchemy import ColumnElement, Table, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow.definition.plan import Plan
from skep.flow.runs import RunEvent, RunFilter, RunRecord, StepRecord, StepRow, StepState
from skep.flow.steps import RunId
from skep.flow.storage import listing, records, tables

PAGE = 2000
"""Rows that are read at a time, so that the event loop has other turns between."""
_archive, _steps = tables.archive.c, tables.steps.c


class ArchivedSignal(Struct, frozen=True, kw_only=True):
    """What somebody told the run; `step` is the one that took it, or ""."""

    name: str
    value: Any
    by: str
    at: float
    step: str


class ArchivedRun(Struct, frozen=True, kw_only=True):
    """A run as it was when it was archived."""

    run: RunRecord
    steps: tuple[StepRecord, ...]
    """In topological order."""
    events: tuple[RunEvent, ...]
    signals: tuple[ArchivedSignal, ...]


class _Head(Struct):
    """Of an archived run the run alone: the rest is not made into objects."""

    run: RunRecord


async def is_archived(connection: AsyncConnection, run: RunId) -> bool:
    """Then the run's rows go, whatever is left of them."""
    return (await connection.execute(select(_archive.run).where(_archive.run == run))).first() is not None


async def find(connection: AsyncConnection, run: RunId) -> ArchivedRun | None:
    found = (await connection.execute(select(_archive.content).where(_archive.run == run))).scalar()
    return None if found is None else await asyncio.to_thread(unpack, found)


async def runs(
    connection: AsyncConnection, where: RunFilter, *, limit: int = 50, before: RunId | None = None
) -> list[RunRecord]:
    """Newest first; of the conditions tenant, flow, states and times count.  `before`: only older ones."""
    query = select(_archive.content).where(*_conditions(where)).order_by(_archive.run.desc()).limit(limit)
    if before is not None:
        query = query.where(_archive.run < before)
    found = (await connection.execute(query)).scalars().all()
    return await asyncio.to_thread(lambda: [_head(content) for content in found])


async def read(connection: AsyncConnection, run: RunId) -> ArchivedRun | None:
    """The run as its rows are now; None if it is gone."""
    record = await records.run(connection, run)
    c = tables.runs.c
    definition = select(tables.definitions.c.content).join(tables.runs).where(c.id == run)
    content = (await connection.execute(definition)).scalar()
    if record is None or content is None:
        return None
    rows = await _step_rows(connection, run)
    return ArchivedRun(
        run=record,
        steps=await asyncio.to_thread(_step_records, content, rows),
        events=tuple(await _events(connection, run)),
        signals=tuple(await _signals(connection, run)),
    )


async def add(connection: AsyncConnection, archived: ArchivedRun, content: bytes) -> None:
    """`content`: as `pack` made it."""
    run = archived.run
    values = {
        "run": run.id,
        "tenant": run.tenant,
        "flow": run.flow,
        "title": run.title,
        "state": run.state.value,
        "created": run.created.timestamp(),
        "finished": (run.finished or run.created).timestamp(),
        "content": content,
    }
    await connection.execute(insert(tables.archive).values(values))


def pack(archived: ArchivedRun) -> bytes:
    """JSON, compressed with zstd."""
    return zstandard.ZstdCompressor().compress(msgspec.json.encode(archived))


def unpack(content: bytes) -> ArchivedRun:
    return msgspec.json.decode(zstandard.ZstdDecompressor().decompress(content), type=ArchivedRun)


def _head(content: bytes) -> RunRecord:
    return msgspec.json.decode(zstandard.ZstdDecompressor().decompress(content), type=_Head).run


def _step_records(plan: bytes, rows: dict[str, StepRow]) -> tuple[StepRecord, ...]:
    entries = listing.entries(msgspec.json.decode(plan, type=Plan), rows)
    return tuple(records.step_record(entry, rows.get(entry.name)) for entry in entries)


def _conditions(where: RunFilter) -> Iterator[ColumnElement[bool]]:
    if where.tenant is not None:
        yield _archive.tenant == where.tenant
    if where.flow is not None:
        yield _archive.flow == where.flow
    if where.states:
        yield _archive.state.in_([state.value for state in where.states])
    if where.created_after is not None:
        yield _archive.created > where.created_after.timestamp()
    if where.created_before is not None:
        yield _archive.created < where.created_before.timestamp()


async def _step_rows(connection: AsyncConnection, run: RunId) -> dict[str, StepRow]:
    rows: dict[str, StepRow] = {}
    columns = (_steps.state, _steps.attempts, _steps.error, _steps.message, _steps.started, _steps.finished)
    for name, state, attempts, error, message, started, finished in await _pages(
        connection, tables.steps, run, "step", [_steps.step, *columns]
    ):
        rows[name] = StepRow(
            state=StepState(state),
            attempts=attempts,
            error=error,
            message=message,
            started=started,
            finished=finished,
        )
    return rows


async def _events(connection: AsyncConnection, run: RunId) -> list[RunEvent]:
    events: list[RunEvent] = []
    while page := await records.history(connection, run, events[-1].sequence if events else 0, PAGE):
        events += page
    return events


async def _signals(connection: AsyncConnection, run: RunId) -> list[ArchivedSignal]:
    c = tables.signals.c
    query = select(c.name, c.body, c.by, c.at, c.step).where(c.run == run).order_by(c.at, c.id)
    return [
        ArchivedSignal(name=name, value=msgspec.json.decode(body), by=by, at=at, step=step or "")
        for name, body, by, at, step in await connection.execute(query)
    ]


async def _pages(
    connection: AsyncConnection, table: Table, run: RunId, key: str, columns: Sequence[Any]
) -> list[Any]:
    """All rows of the run by their key, which is the first of the columns."""
    found: list[Any] = []
    order = table.columns[key]
    query = select(*columns).where(table.columns["run"] == run).order_by(order).limit(PAGE)
    page = (await connection.execute(query)).all()
    while page:
        found += page
        page = (await connection.execute(query.where(order > page[-1][0]))).all()
    return found
