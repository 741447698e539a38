"""Join tokens: what a new host shows once.  Only their SHA-256 is stored."""

from typing import cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.model.ids import HostName, ZoneName
from skep.store import rows
from skep.store.tables import join_tokens


class JoinTokenRow(rows.Row, frozen=True, kw_only=True):
    """`host`: the name it is bound to, or that of the host which used it.  `used_by`: the hash of its key."""

    id: str
    hash: str
    host: HostName | None
    zone: ZoneName
    pool: str | None
    created: float
    created_by: str
    expires: float
    used: float | None = None
    used_by: str | None = None


async def every(connection: AsyncConnection) -> list[JoinTokenRow]:
    return await rows.many(
        connection, sa.select(join_tokens).order_by(join_tokens.c.created, join_tokens.c.id), JoinTokenRow
    )


async def by_hash(connection: AsyncConnection, digest: str) -> JoinTokenRow | None:
    return await rows.one(
        connection, sa.select(join_tokens).where(join_tokens.c.hash == digest), JoinTokenRow
    )


async def insert(connection: AsyncConnection, token: JoinTokenRow) -> None:
    await rows.insert(connection, join_tokens, [token])


async def take(connection: AsyncConnection, token: str, key: str, at: float, host: HostName) -> bool:
    """Use the token for the host with this key; whether nobody else had.  Of two at once one gets it."""
    change = (
        sa.update(join_tokens)
        .where(join_tokens.c.id == token, join_tokens.c.used.is_(None), join_tokens.c.expires > at)
        .values(used=at, used_by=key, host=host)
    )
    return cast("sa.CursorResult[object]", await connection.execute(change)).rowcount == 1


async def delete(connection: AsyncConnection, token: str) -> None:
    await rows.delete(connection, join_tokens, [token])


async def forget(connection: AsyncConnection, before: float) -> None:
    """Delete those whose time was over before that moment."""
    await connection.execute(sa.delete(join_tokens).where(join_tokens.c.expires < before))
