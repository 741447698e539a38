"""Zones: data centres, each in a region.  For operators."""

from collections import Counter

from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.callers import Caller
from skep.control.hosts.cluster_zones import ClusterZones
from skep.flow import Database
from skep.model.errors import Conflict, NotFound
from skep.model.ids import RegionName, ZoneName
from skep.model.names import check_name
from skep.model.views.hosts import ZoneView
from skep.store import clusters, egress, hosts
from skep.store.hosts import ZoneRow


class Zones:
    def __init__(self, database: Database, on_clusters: ClusterZones) -> None:
        self._database = database
        self._on_clusters = on_clusters

    async def add(self, caller: Caller, zone: str, region: str) -> ZoneView:
        """Make the zone, with its region and a pool of the same name, unless it is there.

        Raises:
            Conflict: it is in another region.
        """
        caller.must_operate()
        row = ZoneRow(
            name=ZoneName(check_name(zone, "zone")), region=RegionName(check_name(region, "region"))
        )

        async def change(connection: AsyncConnection) -> None:
            known = {one.name: one.region for one in await hosts.every_zone(connection)}
            if known.get(row.name, row.region) != row.region:
                raise Conflict(f"Zone {zone!r} is in region {known[row.name]!r}.")
            await hosts.ensure_zone(connection, row)

        await self._database.write(change)
        return next(one for one in await self.list(caller) if one.name == zone)

    async def remove(self, caller: Caller, zone: str, *, lost: bool = False) -> None:
        """Remove a zone without hosts, or one on a cluster (see `ClusterZones.remove`), and its pools.

        Raises:
            Conflict: it has hosts, or something is in its cluster.
        """
        caller.must_operate()
        if await self._on_clusters.remove(caller, zone, lost=lost):
            return

        async def change(connection: AsyncConnection) -> None:
            if zone not in {one.name for one in await hosts.every_zone(connection)}:
                raise NotFound(f"There is no zone {zone!r}; see 'skep zone ls'.")
            users = [host.name for host in await hosts.every(connection) if host.zone == zone]
            if users:
                raise Conflict(f"Zone {zone!r} has hosts ({', '.join(users[:10])}): remove them first.")
            if any(one.zone == zone for one in await egress.every(connection)):
                raise Conflict(
                    f"Zone {zone!r} has egress addresses: take them away with 'skep net egress rm'."
                )
            await hosts.delete_zone(connection, ZoneName(zone))

        await self._database.write(change)

    async def list(self, caller: Caller) -> list[ZoneView]:
        caller.must_operate()
        async with self._database.read() as connection:
            rows = await hosts.every_zone(connection)
            count = Counter(host.zone for host in await hosts.every(connection))
            on_clusters = {row.zone for row in await clusters.every(connection)}
        return [
            ZoneView(
                name=row.name,
                region=row.region,
                hosts=count[row.name],
                engine="kubernetes" if row.name in on_clusters else "skep",
            )
            for row in rows
        ]
