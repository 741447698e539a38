"""Connections to SQLite on which a statement takes one turn of the driver's thread, with its rows.

The driver has a thread per connection, and each way there and back costs more than a small statement does.
Its own cursors go there four times: to be made, to execute, to fetch, and to be closed.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Self

import aiosqlite
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.aiosqlite import SQLiteDialect_aiosqlite
from sqlalchemy.util import LRUCache

COMPILED: LRUCache[Any, Any] = LRUCache(1000)
"""Statements as text, for every database of the process: to compile one takes longer than to execute it, and
tests and trials (`skep.flow.testing`) open thousands of databases."""


class Dialect(SQLiteDialect_aiosqlite):
    """All are equal, so that what was compiled for one database serves the next (see `COMPILED`)."""

    supports_statement_cache = True

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self)

    def __hash__(self) -> int:
        return hash(type(self))


registry.register("sqlite.skep", __name__, "Dialect")


class Cursor:
    """What SQLAlchemy needs of one: it fetches everything at once anyway."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._rows: list[Any] = []
        self.description: Sequence[Any] | None = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.arraysize = 1

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, sql: str, parameters: Any = ()) -> Self:
        await self._connection.in_its_thread(partial(self._run, sqlite3.Cursor.execute, sql, parameters))
        return self

    async def executemany(self, sql: str, parameters: Iterable[Any]) -> Self:
        await self._connection.in_its_thread(partial(self._run, sqlite3.Cursor.executemany, sql, parameters))
        return self

    async def fetchall(self) -> list[Any]:
        rows, self._rows = self._rows, []
        return rows

    async def close(self) -> None:
        """Nothing is left open between two turns."""
        self._rows = []

    def _run(
        self, execute: Callable[..., object], sql: str, parameters: Any, driver: sqlite3.Connection
    ) -> None:
        cursor = driver.cursor()
        try:
            execute(cursor, sql, parameters)
            self.description = cursor.description
            self._rows = cursor.fetchall() if cursor.description else []
            self.rowcount, self.lastrowid = cursor.rowcount, cursor.lastrowid
        finally:
            cursor.close()


class Connection(aiosqlite.Connection):
    """Made by `connect`."""

    def cursor(self) -> Cursor:  # type: ignore[override]
        return Cursor(self)

    async def in_its_thread(self, function: Callable[[sqlite3.Connection], None]) -> None:
        """Not public, but the only way to have a function run by the thread that has the connection."""
        await self._execute(function, self._conn)  # type: ignore[no-untyped-call]


async def connect(file: str, pragmas: Sequence[str]) -> Connection:
    """To the database in the file, with each of the pragmas; nobody but the caller begins transactions."""

    def opened() -> sqlite3.Connection:
        connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        try:
            for pragma in pragmas:
                connection.execute(f"PRAGMA {pragma}").close()
        except BaseException:
            connection.close()
            raise
        return connection

    connection = Connection(opened, iter_chunk_size=64)
    connection._thread.daemon = True
    try:
        await connection
    except BaseException:  # it was told to stop and says so to this event loop, which may be about to end
        await asyncio.to_thread(connection._thread.join)
        raise
    return connection
