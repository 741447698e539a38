"""Moves runs that ended long ago into the archive, and sweeps away what nobody refers to any more.

It works in small transactions and rests after each, so that runs that go on hardly notice.  A run moves as a
whole in one of them, unless it is too large: then its archive is made first, from which moment it cannot be
tried again, and its rows follow piece by piece.  Whenever the process dies, the next one goes on from there.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeVar

import structlog
from msgspec import Struct
from sqlalchemy import (
    ColumnElement,
    CursorResult,
    Delete,
    Table,
    and_,
    delete,
    exists,
    func,
    or_,
    select,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow.errors import UnknownRun
from skep.flow.runs import RunFilter, RunRecord, RunState
from skep.flow.steps import RunId
from skep.flow.storage import archive, tables
from skep.flow.storage.archive import ArchivedRun
from skep.flow.storage.database import Database
from skep.flow.storage.retention_policy import DAY, RetentionPolicy

log = structlog.get_logger(__name__)

T = TypeVar("T")

REST = 4.0
"""After a transaction that took a second this many seconds of rest."""
AIM = 0.02
"""Seconds that a transaction should hold the writer."""
AT_ONCE = 5
"""Blobs that are deleted together: they are large."""
MOST_ROWS = 2000
UNUSED = 2 * DAY
"""Blobs and definitions that nobody refers to stay so long: somebody may be about to."""
_runs, _archive = tables.runs.c, tables.archive.c


class Pace:
    """How many rows a transaction may change so that it takes about as long as it should."""

    def __init__(self, rows: int = 500) -> None:
        self.rows = rows

    def learn(self, seconds: float) -> None:
        """Small ones say little: the next may be twice as large, at most."""
        factor = min(2.0, max(0.25, AIM / max(seconds, 1e-6)))
        self.rows = min(MOST_ROWS, max(20, int(self.rows * factor)))


class _Ended(Struct, frozen=True):
    """A run whose time has come; `size` is about how many rows it has."""

    id: RunId
    finished: float
    size: int


class Archivist:
    """`clock`: seconds since 1970, the same as the engine's."""

    def __init__(
        self, database: Database, policy: RetentionPolicy, clock: Callable[[], float] = time.time
    ) -> None:
        self.policy = policy
        self.pace = Pace()
        self._database = database
        self._clock = clock

    async def run(self) -> None:
        """Look every `period` until cancelled; a failure is logged and tried again."""
        while True:
            try:
                await self.look()
            except Exception as error:
                log.warning("flow.archivist_failed", error=str(error))
            await asyncio.sleep(self.policy.period)

    async def look(self) -> int:
        """Archive and forget everything whose time has come; answers how many runs were archived."""
        archived = 0
        while due := await self._due():
            moved = 0
            for group in _groups(due, self.pace.rows):
                moved += await self._archive(group)
            archived += moved
            if moved == 0 or len(due) < self.policy.batch:
                break
        await self._forget_archived()
        await self._sweep(tables.blobs, exists().where(tables.steps.c.blob == tables.blobs.c.hash))
        await self._sweep(tables.definitions, exists().where(_runs.definition == tables.definitions.c.hash))
        return archived

    async def find(self, run: RunId) -> ArchivedRun:
        """Raises UnknownRun: it is not in the archive."""
        async with self._database.read() as connection:
            found = await archive.find(connection, run)
        if found is None:
            raise UnknownRun(f"there is no run {run} in the archive")
        return found

    async def list(
        self, where: RunFilter | None = None, *, limit: int = 50, before: RunId | None = None
    ) -> list[RunRecord]:
        """Archived runs, newest first; of the conditions tenant, flow, states and times count."""
        async with self._database.read() as connection:
            return await archive.runs(connection, where or RunFilter(), limit=limit, before=before)

    # archiving

    async def _due(self) -> Sequence[_Ended]:
        """Ended runs whose time has come, the longest ended first."""
        now, conditions = self._clock(), []
        for keep, states in (
            (self.policy.keep, [RunState.SUCCEEDED.value]),
            (self.policy.keep_failed, [RunState.FAILED.value, RunState.CANCELLED.value]),
        ):
            if keep is not None:
                conditions.append(and_(_runs.finished < now - keep, _runs.state.in_(states)))
        if not conditions:
            return []
        last = select(func.max(tables.events.c.sequence)).where(tables.events.c.run == _runs.id)
        query = (
            select(_runs.id, _runs.finished, _runs.total + func.coalesce(last.scalar_subquery(), 0))
            .where(_runs.finished.is_not(None), or_(*conditions))
            .order_by(_runs.finished, _runs.id)
            .limit(self.policy.batch)
        )
        async with self._database.read() as connection:
            return [_Ended(RunId(id_), at, size) for id_, at, size in await connection.execute(query)]

    async def _archive(self, group: Sequence[_Ended]) -> int:
        packed = await self._pack(group)
        large = len(group) == 1 and group[0].size > self.pace.rows
        moved = await self._write(lambda connection: _move(connection, group, packed, whole=not large))
        if large and moved:
            await self._remove_pieces(group[0].id)
        return len(moved)

    async def _pack(self, group: Sequence[_Ended]) -> dict[RunId, tuple[ArchivedRun, bytes]]:
        """Those that are archived already, but whose rows are not gone yet, are left as they are."""
        packed: dict[RunId, tuple[ArchivedRun, bytes]] = {}
        for ended in group:
            async with self._database.read() as connection:
                if await archive.is_archived(connection, ended.id):
                    continue
                found = await archive.read(connection, ended.id)
            if found is not None:
                packed[ended.id] = found, await asyncio.to_thread(archive.pack, found)
        return packed

    async def _remove_pieces(self, run: RunId) -> None:
        for table, key in ((tables.events, tables.events.c.sequence), (tables.steps, tables.steps.c.step)):
            await self._delete(table, key, table.c.run == run)
        await self._execute(delete(tables.runs).where(_runs.id == run))

    # forgetting

    async def _forget_archived(self) -> None:
        if self.policy.archived is None:
            return
        await self._delete(
            tables.archive, _archive.run, _archive.finished < self._clock() - self.policy.archived
        )

    async def _sweep(self, table: Table, used: Any) -> None:
        """Delete what has not been used for long; looked for outside of the writer's transaction."""
        c, before = table.columns, self._clock() - UNUSED
        unused = and_(c.created < before, ~used)
        async with self._database.read() as connection:
            found = (await connection.execute(select(c.hash).where(unused))).scalars().all()
        for first in range(0, len(found), AT_ONCE):
            await self._execute(delete(table).where(c.hash.in_(found[first : first + AT_ONCE]), unused))

    async def _delete(self, table: Table, key: ColumnElement[Any], where: ColumnElement[bool]) -> None:
        """Piece by piece, as many rows at a time as are soon deleted."""
        while True:
            some = select(key).where(where).limit(self.pace.rows)
            gone = delete(table).where(where, key.in_(some.scalar_subquery()))
            if (await self._execute(gone)).rowcount == 0:
                return

    async def _execute(self, statement: Delete) -> CursorResult[Any]:
        async def execute(connection: AsyncConnection) -> CursorResult[Any]:
            return await connection.execute(statement)

        return await self._write(execute)

    async def _write(self, change: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """One small transaction, and a rest."""
        took = 0.0

        async def timed(connection: AsyncConnection) -> T:
            nonlocal took
            begun = time.monotonic()
            try:
                return await change(connection)
            finally:
                took = time.monotonic() - begun

        result = await self._database.write(timed)
        self.pace.learn(took)
        await asyncio.sleep(took * REST)
        return result


async def _move(
    connection: AsyncConnection,
    group: Sequence[_Ended],
    packed: dict[RunId, tuple[ArchivedRun, bytes]],
    *,
    whole: bool,
) -> list[RunId]:
    """Those that are still as they were found; one that was tried again meanwhile is left alone."""
    same = [(ended.id, ended.finished) for ended in group]
    query = select(_runs.id).where(tuple_(_runs.id, _runs.finished).in_(same)).with_for_update()
    moved = []
    for run in (await connection.execute(query)).scalars().all():
        if await archive.is_archived(connection, run):
            moved.append(run)
        elif run in packed:
            await archive.add(connection, *packed[run])
            moved.append(run)
    if whole and moved:
        await connection.execute(delete(tables.runs).where(_runs.id.in_(moved)))
    return moved


def _groups(due: Sequence[_Ended], most: int) -> Iterator[list[_Ended]]:
    """As many as may change in one transaction; a large one is alone."""
    group: list[_Ended] = []
    size = 0
    for ended in due:
        if group and size + ended.size > most:
            yield group
            group, size = [], 0
        group.append(ended)
        size += ended.size
    if group:
        yield group
