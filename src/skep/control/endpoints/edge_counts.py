"""What endpoints have counted of a service, over all hosts.  Asked by the steps of a canary release."""

import asyncio
from collections.abc import Collection

import structlog

from skep.control.canary import Sides, sides
from skep.control.host_directory import HostDirectory
from skep.flow import Database
from skep.model.edge import EndpointTraffic
from skep.model.errors import SkepError
from skep.model.ids import EndpointId, HostName, ServiceId
from skep.store import endpoints

PATIENCE = 5.0
"""Seconds that a host has to answer."""

log = structlog.get_logger("skep.edge-counts")


class EdgeCounts:
    """Satisfies `Counting` of the steps."""

    def __init__(self, database: Database, directory: HostDirectory) -> None:
        self._database = database
        self._directory = directory

    async def counts(self, services: Collection[ServiceId], revision: int) -> dict[ServiceId, Sides]:
        """Of those whose endpoints anybody counts; a host that does not answer now is left out."""
        async with self._database.read() as connection:
            every = await endpoints.every(connection)
        of: dict[EndpointId, ServiceId] = {row.id: row.service_id for row in every}
        wanted = set(of.values()) & set(services)
        if not wanted:
            return {}
        answers = await asyncio.gather(*(self._ask(name) for name in self._directory.names()))
        counted: dict[ServiceId, list[EndpointTraffic]] = {}
        for one in (one for answer in answers for one in answer):
            if (service := of.get(one.endpoint)) in wanted:
                counted.setdefault(service, []).append(one)
        return {service: sides(found, revision) for service, found in sorted(counted.items())}

    async def _ask(self, name: HostName) -> list[EndpointTraffic]:
        try:
            async with asyncio.timeout(PATIENCE):
                there = await self._directory.answering(name)
                return await there.edge.traffic()
        except (SkepError, TimeoutError) as error:
            log.warning("traffic.unknown", host=name, error=str(error))
            return []
