"""What only one process of an installation at a time decides about, by PostgreSQL's advisory locks."""

import zlib
from enum import IntEnum

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

_FAMILY = 0x736B6570
"""So that other users of the database do not meet ours: "skep"; the flow engine uses its first numbers."""


class Turn(IntEnum):
    SETTING_UP = 100
    CLAIMING = 101
    """Addresses, networks and published ports: two that look at the same moment must not choose the same."""
    CHANGING = 102
    """Whether an app is left in peace, and may be changed: a turn for each."""


async def take_turn(connection: AsyncConnection, turn: Turn) -> None:
    """Until the transaction ends nobody else has this turn; SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_FAMILY, int(turn))))


async def try_turn(connection: AsyncConnection, turn: Turn, thing: str) -> bool:
    """Whether nobody else has the turn of that thing; if so, nobody else has it until the transaction ends.

    Seldom two things share a turn: they go by their checksums.
    """
    if connection.dialect.name != "postgresql":
        return True
    number = zlib.crc32(thing.encode()) - 2**31
    lock = sa.func.pg_try_advisory_xact_lock(_FAMILY + int(turn), number)
    return bool((await connection.execute(sa.select(lock))).scalar_one())
