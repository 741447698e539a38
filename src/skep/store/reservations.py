"""Ranges of addresses that the allocator leaves alone."""

from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.model.ids import NetworkId, ReservationId, TenantId
from skep.store import rows
from skep.store.tables import reservations


class ReservationRow(rows.Row, frozen=True, kw_only=True):
    """From `first` to `last`, both in it.  `tenant_id` is the network's owner."""

    id: ReservationId
    tenant_id: TenantId
    network_id: NetworkId
    first: int
    last: int
    purpose: str
    created: float


async def of_network(connection: AsyncConnection, network: NetworkId) -> list[ReservationRow]:
    query = sa.select(reservations).where(reservations.c.network_id == network).order_by(reservations.c.first)
    return await rows.many(connection, query, ReservationRow)


async def insert(connection: AsyncConnection, row: ReservationRow) -> None:
    await rows.insert(connection, reservations, [row])


async def delete(connection: AsyncConnection, ids: Iterable[str]) -> None:
    await rows.delete(connection, reservations, ids)
