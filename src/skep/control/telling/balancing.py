"""Telling hosts where connections to the services of their networks are led."""

from collections.abc import Collection
from contextlib import suppress

from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.host_directory import HostDirectory
from skep.control.telling.listening import Listening, listening, together
from skep.control.telling.telling import Telling
from skep.control.telling.virtual_ips import NOTHING, VirtualMap, virtual_maps
from skep.flow import Database
from skep.model.errors import Unsupported
from skep.model.host import PeersInForce
from skep.model.ids import HostName, NetworkId, ReleaseId, ServiceId
from skep.store import clusters, hosts, networks, releases, virtual_ips
from skep.store.releases import ReleaseRow


class Balancing(Telling[NetworkId, VirtualMap]):
    """One per process."""

    subject = "virtual-ips"
    nothing = NOTHING

    def __init__(self, database: Database, directory: HostDirectory) -> None:
        super().__init__(database, directory)
        self._releases: dict[ReleaseId, dict[str, Listening]] = {}

    async def prepare(self, host: HostName, key: NetworkId) -> None:
        """Once: what it was told holds for what is plugged later, too.  Older hosts do without."""
        if (host, key) not in self._told:
            with suppress(Unsupported):
                await super().prepare(host, key)

    async def networks_of(self, services: Collection[ServiceId]) -> list[NetworkId]:
        """Where any of them has a virtual IP."""
        async with self._database.read() as connection:
            return await virtual_ips.networks_of(connection, services)

    async def _maps(
        self, connection: AsyncConnection, time: int, chosen: Collection[NetworkId] | None
    ) -> dict[NetworkId, VirtualMap]:
        addresses = await virtual_ips.named(connection, chosen)
        if not addresses:
            return {}
        concerned = {row.network_id for row in addresses}
        standing = {row.host for row in await clusters.every(connection)}
        return virtual_maps(
            time,
            addresses,
            await networks.attachments(connection, concerned),
            await virtual_ips.members(connection, concerned),
            {row.name for row in await hosts.every(connection) if not row.answers},
            await self._listening(connection, {row.service_id for row in addresses}, standing),
            standing,
        )

    async def _listening(
        self, connection: AsyncConnection, services: Collection[ServiceId], standing: Collection[HostName]
    ) -> dict[ServiceId, Listening]:
        """Of services in clusters.  Releases never change: each is read once."""
        if not standing:
            return {}
        found: dict[ServiceId, list[Listening]] = {}
        for one in await virtual_ips.releases_behind(connection, services, standing):
            if one.release_id not in self._releases:
                self._releases[one.release_id] = _listening(await releases.get(connection, one.release_id))
            found.setdefault(one.service_id, []).append(self._releases[one.release_id].get(one.service, ()))
        return {service: together(ports) for service, ports in found.items()}

    def _empty(self, network: NetworkId) -> VirtualMap:
        return VirtualMap(network, 0, (), (), {})

    async def _ask(self, name: HostName) -> dict[NetworkId, PeersInForce]:
        return await self._directory.on(name).fabric.virtual_ips()

    async def _set(self, name: HostName, place: VirtualMap, at_least: int) -> None:
        await self._directory.on(name).fabric.set_virtual_ips(place.seen_from(name, at_least))


def _listening(release: ReleaseRow | None) -> dict[str, Listening]:
    """By service."""
    if release is None:
        return {}
    return {
        name: listening(service, release.images[name].config)
        for name, service in release.spec.services.items()
        if name in release.images
    }
