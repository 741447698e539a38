"""Certificates that are ordered by ACME (RFC 8555): accounts with authorities, and orders."""

from collections.abc import Iterable

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.model.ids import AcmeOrderId, TenantId
from skep.store import rows
from skep.store.tables import acme_accounts, acme_orders


class AccountRow(rows.Row, frozen=True, kw_only=True):
    """Of this installation, with the authority of that directory.  `url` empty: it is not registered yet."""

    directory: str
    url: str
    sealed_key: bytes
    created: float


class OrderRow(rows.Row, frozen=True, kw_only=True):
    """A name that is to have a certificate, for as long as it is to have one.

    `url` is that of the order under way, empty when there is none; `sealed_key` the key that it is for, and
    `proof` what its authority is to find under the name.  `due`: when there is something to do next; who
    does it first puts that off, so that nobody else does.
    """

    id: AcmeOrderId
    tenant_id: TenantId
    host: str
    url: str = ""
    sealed_key: bytes = b""
    proof: str = ""
    failures: int = 0
    """Since the last success."""
    problem: str = ""
    due: float
    ordered: float = 0.0
    """When the last order was made; 0: never."""
    created: float


async def account(connection: AsyncConnection, directory: str) -> AccountRow | None:
    query = sa.select(acme_accounts).where(acme_accounts.c.directory == directory)
    return await rows.one(connection, query, AccountRow)


async def insert_account(connection: AsyncConnection, row: AccountRow) -> None:
    await rows.insert(connection, acme_accounts, [row])


async def save_account(connection: AsyncConnection, directory: str, url: str) -> None:
    await connection.execute(
        sa.update(acme_accounts).where(acme_accounts.c.directory == directory).values(url=url)
    )


async def orders(connection: AsyncConnection, tenant: TenantId | None = None) -> list[OrderRow]:
    query = sa.select(acme_orders).order_by(acme_orders.c.due, acme_orders.c.id)
    if tenant is not None:
        query = query.where(acme_orders.c.tenant_id == tenant)
    return await rows.many(connection, query, OrderRow)


async def insert(connection: AsyncConnection, new: Iterable[OrderRow]) -> None:
    await rows.insert(connection, acme_orders, new)


async def take(connection: AsyncConnection, row: OrderRow, until: float) -> OrderRow | None:
    """The order, put off until then for everybody else; None: another process has taken it."""
    mine = sa.and_(acme_orders.c.id == row.id, acme_orders.c.due == row.due)
    taken = await connection.execute(
        sa.update(acme_orders).where(mine).values(due=until).returning(acme_orders.c.id)
    )
    return msgspec.structs.replace(row, due=until) if taken.first() is not None else None


async def save(connection: AsyncConnection, row: OrderRow, taken: OrderRow) -> bool:
    """False: another process has taken it meanwhile, or it is gone; nothing was changed."""
    mine = sa.and_(acme_orders.c.id == taken.id, acme_orders.c.due == taken.due)
    done = await connection.execute(
        sa.update(acme_orders).where(mine).values(rows.columns(row)).returning(acme_orders.c.id)
    )
    return done.first() is not None


async def delete(connection: AsyncConnection, ids: Iterable[str]) -> None:
    await rows.delete(connection, acme_orders, ids)


async def proofs(connection: AsyncConnection) -> dict[tuple[TenantId, str], str]:
    """What authorities are to find now, by host name."""
    query = sa.select(acme_orders.c.tenant_id, acme_orders.c.host, acme_orders.c.proof)
    found = await connection.execute(query.where(acme_orders.c.proof != ""))
    return {(TenantId(tenant), host): proof for tenant, host, proof in found}
