"""Addresses that replicas in clusters asked for: each is given once in a cluster, whosever it is."""

from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.model.ids import HostName, ReplicaId, TenantId
from skep.store import rows
from skep.store.tables import fixed_addresses


class FixedAddressRow(rows.Row, frozen=True, kw_only=True):
    """`host` is the cluster.  It goes with the replica, and no earlier: who has had it may have it again."""

    host: HostName
    address: str
    tenant_id: TenantId
    replica_id: ReplicaId


async def on(connection: AsyncConnection, host: HostName, chosen: Iterable[str]) -> list[FixedAddressRow]:
    """Of these addresses, those that are given."""
    query = sa.select(fixed_addresses).where(
        fixed_addresses.c.host == host, fixed_addresses.c.address.in_(list(chosen))
    )
    return await rows.many(connection, query, FixedAddressRow)


async def insert(connection: AsyncConnection, new: Iterable[FixedAddressRow]) -> None:
    await rows.insert(connection, fixed_addresses, new)
