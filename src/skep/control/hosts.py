"""Hosts and zones: what the installation runs on."""

from collections import Counter

from skep.control.callers import Caller
from skep.control.host_directory import HostDirectory
from skep.flow import Database
from skep.model.views import HostView, ZoneView
from skep.store import hosts, replicas


class Hosts:
    def __init__(self, database: Database, directory: HostDirectory) -> None:
        self._database = database
        self._directory = directory

    async def zones(self, caller: Caller) -> list[ZoneView]:
        caller.must_operate()
        async with self._database.read() as connection:
            rows = await hosts.every_zone(connection)
            count = Counter(host.zone for host in await hosts.every(connection))
        return [ZoneView(name=row.name, region=row.region, hosts=count[row.name]) for row in rows]

    async def list(self, caller: Caller) -> list[HostView]:
        caller.must_operate()
        async with self._database.read() as connection:
            rows = await hosts.every(connection)
            zones = {zone.name: zone.region for zone in await hosts.every_zone(connection)}
            count = Counter(replica.host for replica in await replicas.find(connection))
        views = []
        for row in rows:
            pool = await self._directory.on(row.name).disks.usage()
            views.append(
                HostView(
                    name=row.name,
                    zone=row.zone,
                    region=zones[row.zone],
                    cpus=row.cpus,
                    memory=row.memory,
                    kernel=row.kernel,
                    cgroups=row.cgroups,
                    state=row.state,
                    replicas=count[row.name],
                    pool_total=pool.total,
                    pool_used=pool.used,
                )
            )
        return views
