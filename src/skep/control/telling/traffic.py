"""Telling hosts who serves: after weights were shifted, and when replicas on machines come up or go down.

Whoever leads connections (published ports, virtual IPs, endpoints) is a `Leader`; all are told together.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any, Generic, Protocol

import structlog

from skep.control.host_directory import HostDirectory
from skep.control.ports import Desired
from skep.control.telling.following import Following
from skep.control.telling.telling import K, Telling
from skep.flow import Database
from skep.model.errors import SkepError, Stale, Unavailable
from skep.model.ids import HostName, ReplicaId, ServiceId
from skep.store import apps, networks, replicas
from skep.store.replicas import ReplicaRow

PATIENCE = 5.0
"""Seconds within which a host must have heard of a change."""

log = structlog.get_logger("skep.traffic")


class Leader(Protocol):
    """One way by which connections come to services."""

    async def announce(self, services: Collection[ServiceId]) -> Collection[HostName]:
        """Make it so on every host, as the rows have it now.  Answers the hosts that did not hear it."""


class Leading(Generic[K]):
    """What hosts are told of networks or apps, as a way to the services that it is `concerned` with."""

    def __init__(
        self,
        telling: Telling[K, Any],
        concerned: Callable[[Collection[ServiceId]], Awaitable[Collection[K]]],
    ) -> None:
        self._telling = telling
        self._concerned = concerned

    async def announce(self, services: Collection[ServiceId]) -> Collection[HostName]:
        return await self._telling.announce(await self._concerned(services))


class Publishing:
    """Published ports, on the hosts of the service's replicas."""

    def __init__(self, database: Database, directory: HostDirectory, desired: Desired) -> None:
        self._database = database
        self._directory = directory
        self._desired = desired

    async def announce(self, services: Collection[ServiceId]) -> Collection[HostName]:
        places = await self._places(services)
        heard = await asyncio.gather(*(self._publish(service, host) for service, host in places))
        return {host for (_, host), told in zip(places, heard, strict=True) if not told}

    async def _places(self, services: Collection[ServiceId]) -> list[tuple[ServiceId, HostName]]:
        """Not of apps that are on their way out: what they published goes, and stays away."""
        async with self._database.read() as connection:
            leaving = await apps.removing(connection)
            published = await networks.published_ports(connection, services=services)
            publishing = {row.service_id for row in published}
            members = [row for one in publishing for row in await replicas.of_service(connection, one)]
        return sorted(
            {
                (row.service_id, row.host)
                for row in members
                if row.app_id not in leaving and not _is_to_come(row)
            }
        )

    async def _publish(self, service: ServiceId, host: HostName) -> bool:
        wanted = await self._desired.publications(service, host)
        try:
            async with asyncio.timeout(PATIENCE):
                there = await self._directory.answering(host)
                await there.fabric.publish(wanted)
        except Stale:  # somebody told it something younger meanwhile
            return True
        except (SkepError, TimeoutError) as error:
            log.warning("publish.failed", service=service, host=host, error=str(error))
            return False
        return True


def _is_to_come(row: ReplicaRow) -> bool:
    """A stand-in of which nothing was heard: its host may not even have the network of the service."""
    return row.stand_in and row.weight == 0 and row.status is None


class Traffic:
    """One per process."""

    def __init__(self, database: Database, directory: HostDirectory, leaders: Iterable[Leader]) -> None:
        self._database = database
        self._directory = directory
        self._leaders = tuple(leaders)
        self._following = Following("traffic", self._follow)

    async def announce(self, services: Collection[ServiceId]) -> None:
        """Raises Unavailable: a host that is not known to be lost has not heard it; ask again."""
        heard = await asyncio.gather(*(leader.announce(services) for leader in self._leaders))
        deaf = {host for hosts in heard for host in hosts if not self._directory.why_silent(host)}
        if deaf:
            raise Unavailable(f"Who serves has not reached {', '.join(sorted(deaf))} yet.")

    def replica_changed(self, replica: ReplicaId) -> None:
        """It came up, went down, or became (un)healthy.  Never waits."""
        self._following.changed(replica)

    async def close(self) -> None:
        await self._following.close()

    async def _follow(self, taken: set[ReplicaId]) -> None:
        async with self._database.read() as connection:
            services = await replicas.services_with(connection, taken)
        try:
            await self.announce(services)
        except SkepError as error:
            log.warning("traffic.unheard", error=error.message)
