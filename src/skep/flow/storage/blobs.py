"""Results too large for the rows of steps: stored once, by their hash."""

from collections.abc import Collection, Iterable, Sequence
from itertools import islice

from sqlalchemy import delete, exists, select
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow.runs import StepRow
from skep.flow.storage import tables

_blobs = tables.blobs.c
_AT_ONCE = 500


async def content_of(connection: AsyncConnection, hash: str) -> bytes | None:  # noqa: A002
    """The JSON of that SHA-256; None if it is not there."""
    content: bytes | None = (
        await connection.execute(select(_blobs.content).where(_blobs.hash == hash))
    ).scalar()
    return content


async def fill(connection: AsyncConnection, rows: Iterable[StepRow]) -> None:
    """Give the rows whose results are blobs their results; they stay blobs when the rows are written."""
    wanting = [row for row in rows if row.blob is not None and row.result is None]
    contents = await _contents(connection, {row.blob for row in wanting if row.blob is not None})
    for row in wanting:
        row.result = contents.get(row.blob or "")


async def sweep(connection: AsyncConnection, before: float) -> int:
    """Delete what no step refers to and nobody saved since (seconds since 1970); answers how many there were.

    Give whoever saves now a day: its blob may be there already, and its step not yet.
    """
    used = exists().where(tables.steps.c.blob == _blobs.hash)
    swept = await connection.execute(delete(tables.blobs).where(_blobs.created < before, ~used))
    return swept.rowcount


async def _contents(connection: AsyncConnection, hashes: Collection[str]) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    for some in _slices(sorted(hashes)):
        found = await connection.execute(select(_blobs.hash, _blobs.content).where(_blobs.hash.in_(some)))
        contents |= {row.hash: row.content for row in found}
    return contents


def _slices(hashes: Sequence[str]) -> Iterable[list[str]]:
    rest = iter(hashes)
    while some := list(islice(rest, _AT_ONCE)):
        yield some
