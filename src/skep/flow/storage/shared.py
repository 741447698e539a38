"""What the members of one database share: its clock, its transactions, and taking turns.

Whatever several workers decide together they decide in one transaction of the database, each on a connection
of its own: neither a slow step inside the journal's transaction nor a journal that cannot write delays it.
"""

import time
from collections.abc import Awaitable, Callable
from enum import IntEnum
from typing import TypeVar

from sqlalchemy import ColumnElement, Double, Insert, Table, cast, extract, func, literal, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow.errors import CommitFailed
from skep.flow.storage import effects
from skep.flow.storage.database import Database
from skep.flow.storage.refusals import TROUBLE

T = TypeVar("T")
_FAMILY = 0x736B6570
"""Of the advisory locks, so that other users of the database do not meet ours: "skep"."""


class Turn(IntEnum):
    """What only one member at a time decides about."""

    JOINING = 1
    GATE = 2
    PERMITS = 3


async def transact(database: Database, change: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    """Run the change in a transaction of its own; return when it is durable.

    On SQLite, which has one writer, it joins the others' commit.

    Raises:
        CommitFailed: the database did not take it; in doubt if the connection broke at the very end.
    """
    if database.engine.dialect.name == "sqlite":
        return await database.write(change)
    committing = False
    try:
        async with database.engine.connect() as connection:
            result = await change(connection)
            committing = True
            await connection.commit()
    except TROUBLE as error:
        effects.current().done |= committing
        raise CommitFailed.of(
            f"the database did not take the change: {error}", in_doubt=committing
        ) from error
    effects.current().done = True
    return result


async def take_turn(connection: AsyncConnection, turn: Turn) -> None:
    """Until the transaction ends nobody else has this turn.  SQLite's writer has it already."""
    if connection.dialect.name == "postgresql":
        await connection.execute(select(func.pg_advisory_xact_lock(_FAMILY, int(turn))))


def now(connection: AsyncConnection) -> ColumnElement[float]:
    """The time by the database's clock, seconds since 1970: the members' own clocks may differ."""
    if connection.dialect.name == "postgresql":
        return cast(extract("epoch", func.clock_timestamp()), Double)
    return literal(time.time(), Double)


def insert_new(connection: AsyncConnection, table: Table) -> Insert:
    """An INSERT that passes over rows that are there already."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()
