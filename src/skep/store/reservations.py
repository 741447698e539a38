"""Ranges of addresses that the allocator leaves alone."""

from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.model.ids import NetworkId, ReservationId, TenantId
from skep.store import rows
from skep.store.tables import reservations, reservations6


class ReservationRow(rows.Row, frozen=True, kw_only=True):
    """From `first` to `last`, both in it, as numbers: below 2^32 they are of IPv4.

    `tenant_id` is the network's owner.
    """

    id: ReservationId
    tenant_id: TenantId
    network_id: NetworkId
    first: int
    last: int
    purpose: str
    created: float


async def of_network(connection: AsyncConnection, network: NetworkId) -> list[ReservationRow]:
    """Those of IPv4 first."""
    found = []
    for table in (reservations, reservations6):
        query = sa.select(table).where(table.c.network_id == network).order_by(table.c.first)
        found += await rows.many(connection, query, ReservationRow)
    return found


async def insert(connection: AsyncConnection, row: ReservationRow) -> None:
    await rows.insert(connection, reservations if row.last < 2**32 else reservations6, [row])


async def delete(connection: AsyncConnection, ids: Iterable[str]) -> None:
    gone = list(ids)
    for table in (reservations, reservations6):
        await rows.delete(connection, table, gone)
