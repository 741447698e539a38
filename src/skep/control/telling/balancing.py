"""Telling hosts where connections to the services of their networks are led."""

from collections.abc import Collection
from contextlib import suppress

from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.telling.telling import Telling
from skep.control.telling.virtual_ips import NOTHING, VirtualMap, virtual_maps
from skep.model.errors import Unsupported
from skep.model.host import PeersInForce
from skep.model.ids import HostName, NetworkId, ServiceId
from skep.store import hosts, networks, virtual_ips


class Balancing(Telling[NetworkId, VirtualMap]):
    """One per process."""

    subject = "virtual-ips"
    nothing = NOTHING

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
        return virtual_maps(
            time,
            addresses,
            await networks.attachments(connection, concerned),
            await virtual_ips.members(connection, concerned),
            {row.name for row in await hosts.every(connection) if not row.answers},
        )

    def _empty(self, network: NetworkId) -> VirtualMap:
        return VirtualMap(network, 0, (), (), {})

    async def _ask(self, name: HostName) -> dict[NetworkId, PeersInForce]:
        return await self._directory.on(name).fabric.virtual_ips()

    async def _set(self, name: HostName, place: VirtualMap, at_least: int) -> None:
        await self._directory.on(name).fabric.set_virtual_ips(place.seen_from(name, at_least))
