"""Users and their tokens.  A token's secret is never stored, only its SHA-256."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.model.ids import TenantId, TokenId, UserId
from skep.store import rows
from skep.store.tables import tokens, users


class UserRow(rows.Row, frozen=True, kw_only=True):
    id: UserId
    tenant_id: TenantId
    name: str
    role: str
    created: float


class TokenRow(rows.Row, frozen=True, kw_only=True):
    id: TokenId
    tenant_id: TenantId
    user_id: UserId
    name: str
    hash: str
    created: float
    expires: float | None
    last_used: float | None


async def every(connection: AsyncConnection, tenant: TenantId | None = None) -> list[UserRow]:
    query = sa.select(users).order_by(users.c.name)
    return await rows.many(
        connection, query if tenant is None else query.where(users.c.tenant_id == tenant), UserRow
    )


async def get(connection: AsyncConnection, user: UserId) -> UserRow | None:
    return await rows.one(connection, sa.select(users).where(users.c.id == user), UserRow)


async def by_name(connection: AsyncConnection, name: str) -> UserRow | None:
    return await rows.one(connection, sa.select(users).where(users.c.name == name), UserRow)


async def insert(connection: AsyncConnection, user: UserRow) -> None:
    await rows.insert(connection, users, [user])


async def delete(connection: AsyncConnection, user: UserId) -> None:
    await connection.execute(sa.delete(tokens).where(tokens.c.user_id == user))
    await rows.delete(connection, users, [user])


async def tokens_of(connection: AsyncConnection, user: UserId | None) -> list[TokenRow]:
    """The tokens of one user, or of everybody."""
    query = sa.select(tokens).order_by(tokens.c.created)
    return await rows.many(
        connection, query if user is None else query.where(tokens.c.user_id == user), TokenRow
    )


async def token_by_hash(connection: AsyncConnection, digest: str) -> TokenRow | None:
    return await rows.one(connection, sa.select(tokens).where(tokens.c.hash == digest), TokenRow)


async def insert_token(connection: AsyncConnection, token: TokenRow) -> None:
    await rows.insert(connection, tokens, [token])


async def delete_token(connection: AsyncConnection, token: TokenId) -> None:
    await rows.delete(connection, tokens, [token])


async def touch_token(connection: AsyncConnection, token: TokenId, at: float) -> None:
    await connection.execute(sa.update(tokens).where(tokens.c.id == token).values(last_used=at))
