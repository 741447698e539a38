"""Addresses by which networks leave to the outside."""

from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.model.ids import EgressId, HostName, NetworkId, TenantId, ZoneName
from skep.store import rows
from skep.store.tables import egress_addresses


class EgressRow(rows.Row, frozen=True, kw_only=True):
    """An address of a zone.  `tenant_id` None: for anybody.  `network_id` has it, `host` leads it outside."""

    id: EgressId
    zone: ZoneName
    address: int
    tenant_id: TenantId | None
    network_id: NetworkId | None
    host: HostName | None
    created: float


async def every(connection: AsyncConnection) -> list[EgressRow]:
    query = sa.select(egress_addresses).order_by(egress_addresses.c.address)
    return await rows.many(connection, query, EgressRow)


async def by_network(
    connection: AsyncConnection, chosen: Iterable[NetworkId] | None = None
) -> dict[NetworkId, EgressRow]:
    """The addresses that the chosen networks (None: all) have."""
    query = sa.select(egress_addresses).where(egress_addresses.c.network_id.is_not(None))
    if chosen is not None:
        query = query.where(egress_addresses.c.network_id.in_(list(chosen)))
    found = await rows.many(connection, query, EgressRow)
    return {row.network_id: row for row in found if row.network_id is not None}


async def insert(connection: AsyncConnection, new: Iterable[EgressRow]) -> None:
    await rows.insert(connection, egress_addresses, new)


async def delete(connection: AsyncConnection, ids: Iterable[str]) -> None:
    await rows.delete(connection, egress_addresses, ids)


async def delete_of_tenant(connection: AsyncConnection, tenant: TenantId) -> None:
    await connection.execute(sa.delete(egress_addresses).where(egress_addresses.c.tenant_id == tenant))


async def assign(
    connection: AsyncConnection, address: EgressId, network: NetworkId | None, host: HostName | None
) -> None:
    query = sa.update(egress_addresses).where(egress_addresses.c.id == address)
    await connection.execute(query.values(network_id=network, host=host))
