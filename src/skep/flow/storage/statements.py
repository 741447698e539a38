"""The hot statements of the engine: many rows of one table at a time, past SQLAlchemy.

On SQLite one statement takes hundreds of rows: for each statement the driver's thread must win the
interpreter back from a busy event loop.  On PostgreSQL large batches go by COPY, which costs this process a
third of what values for a statement do.  Values come in the order of a statement's columns.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any, Protocol

import asyncpg
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow.storage import leases, tables
from skep.flow.storage.leases import Lease

Values = tuple[Any, ...]
_CHUNKS = (512, 128, 32, 8, 2, 1)
"""Rows per statement of SQLite; the largest times 25 columns stays below its limit of 32,766 values."""
_WORTH_COPYING = 256
"""Rows; fewer are written faster one by one in one round trip."""


@dataclass(frozen=True, eq=False)
class Statement:
    """Writes rows of one table.

    `update`: the columns that a row which is there already gets; without any it stays as it is.  If `insert`
    is false, rows that are not there are passed over, and the values are those of `update`, then of the key.
    """

    table: Table
    update: tuple[str, ...] = ()
    insert: bool = True

    @cached_property
    def key(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.table.primary_key.columns)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        if self.insert:
            return tuple(column.name for column in self.table.columns)
        return (*self.update, *self.key)

    @cached_property
    def postgresql(self) -> str:
        """With a place for each value of one row."""
        places = self._places(1)
        return self._insert(f"VALUES ({', '.join(places)})") if self.insert else self._update(places, "")

    def postgresql_if_live(self, first: int) -> str:
        """The same with places numbered from `first`, beside a part `lease` that must be live."""
        places = self._places(first)
        if self.insert:
            return self._insert(f"SELECT {', '.join(places)} FROM lease WHERE lease.state = 'live'")  # noqa: S608
        return f"{self._update(places, 'FROM lease')} AND lease.state = 'live'"

    def _places(self, first: int) -> list[str]:
        return [f"${number}" for number in range(first, first + len(self.columns))]

    @cached_property
    def postgresql_staged(self) -> str:
        """All rows of a table of the same columns, which it leaves empty."""
        taken = f"WITH taken AS (DELETE FROM {self.stage} RETURNING *)"  # noqa: S608
        return f"{taken} {self._insert(f'SELECT {self._names} FROM taken')}"  # noqa: S608

    @lru_cache(maxsize=64)  # noqa: B019  (statements live as long as the program)
    def sqlite(self, rows: int) -> str:
        """With a place for each value of so many rows."""
        row = f"({', '.join('?' * len(self.columns))})"
        values = "VALUES " + ", ".join([row] * rows)
        if self.insert:
            return self._insert(values)
        places = [f"v.column{number}" for number in range(1, len(self.columns) + 1)]
        return self._update(places, f"FROM ({values}) AS v")

    @property
    def stage(self) -> str:
        """The name of the table that rows are copied to first."""
        return f"staged_{self.table.name}"

    @property
    def _names(self) -> str:
        return ", ".join(map(_quoted, self.columns))

    def _insert(self, source: str) -> str:
        key = ", ".join(map(_quoted, self.key))
        changes = ", ".join(f"{_quoted(name)} = excluded.{_quoted(name)}" for name in self.update)
        action = f"UPDATE SET {changes}" if changes else "NOTHING"
        return f"INSERT INTO {self.table.name} ({self._names}) {source} ON CONFLICT ({key}) DO {action}"

    def _update(self, places: Sequence[str], source: str) -> str:
        place = dict(zip(self.columns, places, strict=True))
        changes = ", ".join(f"{_quoted(name)} = {place[name]}" for name in self.update)
        match = " AND ".join(f"{self.table.name}.{_quoted(name)} = {place[name]}" for name in self.key)
        return f"UPDATE {self.table.name} SET {changes} {source} WHERE {match}"  # noqa: S608


DEFINITION = Statement(tables.definitions, update=("created",))
BLOB = Statement(tables.blobs, update=("created",))
NEW_RUN = Statement(tables.runs)
LABEL = Statement(tables.labels)
RUN = Statement(
    tables.runs,
    update=(
        *("total", "deadline", "state", "cause", "error", "output", "epoch", "round", "crashes", "paused"),
        *("worker", "started", "finished"),
    ),
    insert=False,
)
STEP = Statement(
    tables.steps,
    update=(
        *("state", "attempts", "undo_attempts", "result", "blob", "error", "message", "started", "finished"),
    ),
)
EVENT = Statement(tables.events)
REPLY = Statement(tables.inbox, update=("reply",), insert=False)
TAKEN = Statement(tables.signals, update=("step",), insert=False)

ORDER = (DEFINITION, BLOB, NEW_RUN, LABEL, RUN, STEP, EVENT, REPLY, TAKEN)
"""Rows that others refer to come first."""

Rows = Mapping[Statement, Sequence[Values]]


class Writer(Protocol):
    """Writes rows within the connection's transaction.  Rows that are there already are no error."""

    async def write(self, connection: AsyncConnection, rows: Rows, *, new: bool = False) -> None:
        """`new`: none of the events is there already, which some databases make use of.

        Raises what the driver raises, see `refusals.is_final`.
        """

    any_size: bool
    """Whether `transact` takes any rows, or only one for each table and none that another one makes."""

    async def transact(self, driver: Any, rows: Rows, lease: Lease) -> str | None:
        """A transaction in one go: look at the lease, write if it is live, commit.

        Answers the state of the lease.  `driver`: the driver's connection.
        """


def writer_for(dialect: str) -> Writer:
    return PostgresWriter() if dialect == "postgresql" else SqliteWriter()


class SqliteWriter:
    """Everything in one go in the driver's thread: each way there and back is a turn of the event loop."""

    any_size = True

    async def write(self, connection: AsyncConnection, rows: Rows, *, new: bool = False) -> None:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        # Not public, but the only way to have a function run by the thread that has the connection.
        await driver._execute(_write_all, driver._conn, rows)

    async def transact(self, driver: Any, rows: Rows, lease: Lease) -> str | None:
        state: str | None = await driver._execute(_transact, driver._conn, rows, lease)
        return state


def _transact(driver: Any, rows: Rows, lease: Lease) -> str | None:
    driver.execute("BEGIN IMMEDIATE")
    try:
        state = leases.sqlite_state(driver, lease.worker)
        if state == "live":
            _write_all(driver, rows)
            driver.execute("COMMIT")
        return state
    finally:
        if driver.in_transaction:
            driver.rollback()


def _write_all(driver: Any, rows: Rows) -> None:
    for statement in ORDER:
        for some in _chunks(rows.get(statement, ())):
            driver.execute(statement.sqlite(len(some)), tuple(chain.from_iterable(some)))


def _chunks(rows: Sequence[Values]) -> Iterator[Sequence[Values]]:
    start = 0
    while start < len(rows):
        size = next(size for size in _CHUNKS if size <= len(rows) - start)
        yield rows[start : start + size]
        start += size


class PostgresWriter:
    """One round trip per table; one for everything where each gets one row, as when a run is alone."""

    any_size = False
    """Parts of one statement do not see each other's rows: a run cannot be made and changed in it."""

    async def transact(self, driver: Any, rows: Rows, lease: Lease) -> str | None:
        """One statement, which is a transaction of its own: one round trip."""
        used = tuple(statement for statement in ORDER if rows.get(statement))
        values = chain(lease.parameters, *(rows[statement][0] for statement in used))
        state: str | None = await driver.fetchval(_together(used), *values)
        return state

    async def write(self, connection: AsyncConnection, rows: Rows, *, new: bool = False) -> None:
        driver = await _in_transaction(connection)
        for statement in ORDER:
            some = rows.get(statement)
            if not some:
                continue
            if not new or len(some) < _WORTH_COPYING or statement not in (STEP, EVENT):
                await driver.executemany(statement.postgresql, some)
            elif statement is EVENT:
                await driver.copy_records_to_table(
                    statement.table.name, records=some, columns=statement.columns
                )
            else:
                await _write_staged(driver, statement, some)


async def _write_staged(driver: asyncpg.Connection, statement: Statement, rows: Sequence[Values]) -> None:
    """Rows that may be there already cannot be copied to their table at once."""
    await driver.execute(
        f"CREATE TEMPORARY TABLE IF NOT EXISTS {statement.stage} (LIKE {statement.table.name}) "
        "ON COMMIT DELETE ROWS"
    )
    await driver.copy_records_to_table(statement.stage, records=rows, columns=statement.columns)
    await driver.execute(statement.postgresql_staged)


@lru_cache(maxsize=256)
def _together(used: tuple[Statement, ...]) -> str:
    """One row for each of the statements, if the lease is live, whose state it answers."""
    parts, place = [f"lease AS ({leases.POSTGRESQL})"], 3
    for number, statement in enumerate(used):
        parts.append(f"part{number} AS ({statement.postgresql_if_live(place)})")
        place += len(statement.columns)
    return f"WITH {', '.join(parts)} SELECT state FROM lease"  # noqa: S608


async def _in_transaction(connection: AsyncConnection) -> asyncpg.Connection:
    """SQLAlchemy begins with its own first statement only; without that ours would commit at once."""
    driver: Any = (await connection.get_raw_connection()).driver_connection
    if not driver.is_in_transaction():
        await connection.exec_driver_sql("SELECT 1")
    return driver


def _quoted(name: str) -> str:
    return f'"{name}"'
