"""Pools: hosts of a zone that are used alike, for everybody or for one tenant.  For operators."""

from collections import Counter
from collections.abc import Mapping

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.callers import Caller
from skep.flow import Database
from skep.model.errors import Conflict, InvalidInput, NotFound
from skep.model.ids import TenantId, ZoneName
from skep.model.names import check_name
from skep.model.topology import PoolName
from skep.model.views.hosts import PoolView
from skep.store import hosts, tenants
from skep.store.hosts import PoolRow

_LARGEST_OVERCOMMIT = 1_000.0


class Pools:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(
        self,
        caller: Caller,
        pool: str,
        *,
        zone: str | None = None,
        cpu_overcommit: float | None = None,
        memory_overcommit: float | None = None,
        tenant: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> PoolView:
        """Make the pool, which needs a zone, or change it; None leaves what is, tenant "" is everybody.

        Who runs something there already stays.

        Raises:
            Conflict: it is in another zone.  NotFound: there is no such zone or tenant.
        """
        caller.must_operate()
        name = PoolName(check_name(pool, "pool"))
        for factor in (cpu_overcommit, memory_overcommit):
            if factor is not None and not 0 < factor <= _LARGEST_OVERCOMMIT:
                raise InvalidInput(f"An overcommit of {factor:g} makes no sense: 1 promises what is there.")

        async def change(connection: AsyncConnection) -> None:
            row = await hosts.pool(connection, name) or await _new(connection, name, zone)
            if zone is not None and row.zone != zone:
                raise Conflict(f"Pool {pool!r} is in zone {row.zone!r}: pools do not move.")
            changes = {
                "cpu_overcommit": cpu_overcommit,
                "memory_overcommit": memory_overcommit,
                "labels": dict(labels) if labels is not None else None,
            }
            wanted: dict[str, object] = {key: value for key, value in changes.items() if value is not None}
            if tenant is not None:
                wanted["tenant_id"] = await _tenant(connection, tenant)
            await hosts.save_pool(connection, msgspec.structs.replace(row, **wanted))

        await self._database.write(change)
        return next(one for one in await self.list(caller) if one.name == pool)

    async def remove(self, caller: Caller, pool: str) -> None:
        """Raises Conflict: it has hosts, or is the one its zone always has."""
        caller.must_operate()

        async def change(connection: AsyncConnection) -> None:
            row = await hosts.pool(connection, PoolName(pool))
            if row is None:
                raise NotFound(f"There is no pool {pool!r}; see 'skep pool ls'.")
            if pool == row.zone:
                raise Conflict(
                    f"Pool {pool!r} is for hosts of the zone that name none: it goes with the zone."
                )
            users = [host.name for host in await hosts.every(connection) if host.pool == pool]
            if users:
                raise Conflict(f"Pool {pool!r} has hosts ({', '.join(users[:10])}): remove them first.")
            await hosts.delete_pool(connection, row.name)

        await self._database.write(change)

    async def list(self, caller: Caller) -> list[PoolView]:
        caller.must_operate()
        async with self._database.read() as connection:
            rows = await hosts.every_pool(connection)
            count = Counter(host.pool for host in await hosts.every(connection))
            names = {tenant.id: tenant.name for tenant in await tenants.every(connection)}
        return [
            PoolView(
                name=row.name,
                zone=row.zone,
                hosts=count[row.name],
                cpu_overcommit=row.cpu_overcommit,
                memory_overcommit=row.memory_overcommit,
                tenant=names.get(row.tenant_id) if row.tenant_id else None,
                labels=row.labels,
            )
            for row in rows
        ]


async def _new(connection: AsyncConnection, name: PoolName, zone: str | None) -> PoolRow:
    if zone is None:
        raise NotFound(f"There is no pool {name!r}; to make it, say in which zone: --zone NAME")
    if zone not in {one.name for one in await hosts.every_zone(connection)}:
        raise NotFound(f"There is no zone {zone!r}; see 'skep zone ls'.")
    return PoolRow(name=name, zone=ZoneName(zone))


async def _tenant(connection: AsyncConnection, name: str) -> TenantId | None:
    if not name:
        return None
    row = await tenants.by_name(connection, name)
    if row is None:
        raise NotFound(f"There is no tenant {name!r}; see 'skep tenant ls'.")
    return row.id
