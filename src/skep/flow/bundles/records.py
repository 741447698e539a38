"""The rows of bundles, of their activations, and of the runs that are pinned to them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Row, delete, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow.bundles.manifest import Manifest
from skep.flow.bundles.protocol import Description
from skep.flow.runs import RunRow, RunState, StepRow, StepState
from skep.flow.steps import RunId
from skep.flow.storage import tables

_CHUNK = 200


class BundleInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a bundle; `at` is when it was pushed, in seconds since 1970."""

    hash: str
    name: str
    version: str
    manifest: Manifest
    by: str
    at: float
    active: bool = False


class Stored(msgspec.Struct, frozen=True):
    """What is kept beside the content: loading it again needs no look at the code."""

    manifest: Manifest
    description: Description


class Activation(msgspec.Struct, frozen=True):
    id: int
    name: str
    hash: str | None
    by: str
    at: float


async def add(
    connection: AsyncConnection, info: BundleInfo, description: Description, content: bytes
) -> None:
    """Keep it; one that is known stays as it is."""
    known = await connection.execute(select(tables.bundles.c.hash).where(tables.bundles.c.hash == info.hash))
    if known.first() is not None:
        return
    await connection.execute(
        insert(tables.bundles).values(
            hash=info.hash,
            name=info.name,
            version=info.version,
            manifest=msgspec.json.encode(Stored(info.manifest, description)).decode(),
            content=content,
            by=info.by,
            at=info.at,
        )
    )


async def content(connection: AsyncConnection, hash: str) -> tuple[Stored, bytes] | None:  # noqa: A002
    table = tables.bundles.c
    row = (await connection.execute(select(table.manifest, table.content).where(table.hash == hash))).first()
    return None if row is None else (msgspec.json.decode(row.manifest, type=Stored), row.content)


async def infos(connection: AsyncConnection) -> list[BundleInfo]:
    """Newest first."""
    table = tables.bundles.c
    columns = (table.hash, table.name, table.version, table.manifest, table.by, table.at)
    rows = await connection.execute(select(*columns).order_by(table.at.desc(), table.hash))
    active = {row.hash for row in (await newest(connection)).values()}
    return [
        BundleInfo(
            hash=row.hash,
            name=row.name,
            version=row.version,
            manifest=msgspec.json.decode(row.manifest, type=Stored).manifest,
            by=row.by,
            at=row.at,
            active=row.hash in active,
        )
        for row in rows
    ]


async def delete_bundles(connection: AsyncConnection, hashes: Iterable[str]) -> None:
    await connection.execute(delete(tables.bundles).where(tables.bundles.c.hash.in_(list(hashes))))


# activations


async def lock_activations(connection: AsyncConnection) -> None:
    """Until the end of the transaction nobody else activates anything.  SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        await connection.execute(text("LOCK TABLE flow_activations IN EXCLUSIVE MODE"))


async def activate(
    connection: AsyncConnection,
    name: str,
    hash: str | None,  # noqa: A002
    by: str,
    at: float,
) -> None:
    await connection.execute(insert(tables.activations).values(name=name, hash=hash, by=by, at=at))


async def newest(connection: AsyncConnection) -> dict[str, Activation]:
    """What is in force, by the names of the bundles."""
    table = tables.activations
    ids = select(func.max(table.c.id)).group_by(table.c.name)
    rows = await connection.execute(select(table).where(table.c.id.in_(ids)))
    return {row.name: Activation(row.id, row.name, row.hash, row.by, row.at) for row in rows}


async def activations(connection: AsyncConnection, name: str | None = None) -> list[Activation]:
    """Newest first."""
    table = tables.activations
    query = select(table).order_by(table.c.id.desc())
    rows = await connection.execute(query if name is None else query.where(table.c.name == name))
    return [Activation(row.id, row.name, row.hash, row.by, row.at) for row in rows]


# runs


async def definitions_in_use(
    connection: AsyncConnection, known: Iterable[str]
) -> tuple[set[str], dict[str, bytes]]:
    """The hashes of the definitions of unfinished runs, and the contents of those that are not known."""
    runs, definitions = tables.runs.c, tables.definitions.c
    found = await connection.execute(select(runs.definition).where(runs.finished.is_(None)).distinct())
    used = {row.definition for row in found}
    missing = list(used.difference(known))
    contents: dict[str, bytes] = {}
    for start in range(0, len(missing), _CHUNK):
        query = select(definitions.hash, definitions.content)
        rows = await connection.execute(query.where(definitions.hash.in_(missing[start : start + _CHUNK])))
        contents |= {row.hash: row.content for row in rows}
    return used, contents


async def unfinished(connection: AsyncConnection, definitions: Sequence[str]) -> list[RunRow]:
    """The runs of these definitions that have not ended, without their locks and labels."""
    runs: list[RunRow] = []
    for start in range(0, len(definitions), _CHUNK):
        chunk = definitions[start : start + _CHUNK]
        query = select(tables.runs).where(
            tables.runs.c.finished.is_(None), tables.runs.c.definition.in_(chunk)
        )
        runs += map(_run, await connection.execute(query.order_by(tables.runs.c.id)))
    return runs


async def run_with_plan(connection: AsyncConnection, run: RunId) -> tuple[RunRow, bytes] | None:
    """An unfinished run, and its plan as it is stored."""
    definitions = tables.definitions.c
    query = (
        select(tables.runs, definitions.content)
        .join_from(tables.runs, tables.definitions, tables.runs.c.definition == definitions.hash)
        .where(tables.runs.c.id == run, tables.runs.c.finished.is_(None))
    )
    row = (await connection.execute(query)).first()
    return None if row is None else (_run(row), row.content)


def _run(row: Row[Any]) -> RunRow:
    return RunRow(
        id=RunId(row.id),
        flow=row.flow,
        definition=row.definition,
        title=row.title,
        tenant=row.tenant,
        labels={},
        key=row.key,
        input=row.input,
        locks=(),
        total=row.total,
        created=row.created,
        state=RunState(row.state),
        cause=row.cause,
        started=row.started,
    )


async def steps_of(connection: AsyncConnection, runs: Sequence[RunId]) -> Mapping[RunId, dict[str, StepRow]]:
    """The states and results of the steps of each run."""
    table, blobs = tables.steps.c, tables.blobs.c
    found: dict[RunId, dict[str, StepRow]] = {run: {} for run in runs}
    for start in range(0, len(runs), _CHUNK):
        query = (
            select(table.run, table.step, table.state, table.attempts, table.result, blobs.content)
            .join_from(tables.steps, tables.blobs, table.blob == blobs.hash, isouter=True)
            .where(table.run.in_(runs[start : start + _CHUNK]))
        )
        for row in await connection.execute(query):
            result = row.result if row.content is None else row.content
            found[RunId(row.run)][row.step] = StepRow(StepState(row.state), row.attempts, result=result)
    return found
