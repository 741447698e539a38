"""Networks that their owners offered to other tenants."""

from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.model.ids import NetworkId, ShareId, TenantId
from skep.store import rows
from skep.store.tables import networks, shares, tenants


class ShareRow(rows.Row, frozen=True, kw_only=True):
    """`guest` is the name of who is meant; `guest_id`, `alias` and `accepted` are there once it agreed.

    `alias` is what the guest calls the network.
    """

    id: ShareId
    tenant_id: TenantId
    network_id: NetworkId
    guest: str
    guest_id: TenantId | None
    alias: str | None
    created: float
    accepted: float | None


class OfferRow(rows.Row, frozen=True, kw_only=True):
    """A share with the names of its network and of its owner."""

    id: ShareId
    network_id: NetworkId
    network: str
    owner: str
    tenant_id: TenantId
    guest: str
    guest_id: TenantId | None
    alias: str | None
    created: float
    accepted: float | None


async def of_tenant(connection: AsyncConnection, tenant: TenantId, name: str) -> list[OfferRow]:
    """What the tenant offers, and what is offered to it."""
    query = (
        sa.select(shares, networks.c.name.label("network"), tenants.c.name.label("owner"))
        .join(networks, shares.c.network_id == networks.c.id)
        .join(tenants, networks.c.tenant_id == tenants.c.id)
        .where(sa.or_(shares.c.tenant_id == tenant, shares.c.guest == name))
        .order_by(tenants.c.name, networks.c.name, shares.c.guest)
    )
    return await rows.many(connection, query, OfferRow)


async def accepted(connection: AsyncConnection, network: NetworkId, tenant: TenantId) -> bool:
    """Whether both agreed."""
    query = sa.select(shares.c.id).where(
        shares.c.network_id == network, shares.c.guest_id == tenant, shares.c.accepted.is_not(None)
    )
    return (await connection.execute(query)).first() is not None


async def insert(connection: AsyncConnection, row: ShareRow) -> None:
    await rows.insert(connection, shares, [row])


async def accept(
    connection: AsyncConnection, share: ShareId, guest: TenantId, alias: str, now: float
) -> None:
    chosen = sa.update(shares).where(shares.c.id == share)
    await connection.execute(chosen.values(guest_id=guest, alias=alias, accepted=now))


async def delete(connection: AsyncConnection, ids: Iterable[str]) -> None:
    await rows.delete(connection, shares, ids)


async def delete_of_guest(connection: AsyncConnection, guest: TenantId, name: str) -> None:
    of_guest = sa.or_(shares.c.guest_id == guest, shares.c.guest == name)
    await connection.execute(sa.delete(shares).where(of_guest))
