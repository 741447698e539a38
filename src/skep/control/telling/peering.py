"""Telling hosts who is where on their networks."""

from collections.abc import Collection

from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.host_directory import HostDirectory
from skep.control.telling.following import Following
from skep.control.telling.peers import NOBODY, NetworkMap, maps
from skep.control.telling.telling import Telling
from skep.flow import Database
from skep.model.host import PeersInForce
from skep.model.ids import HostName, NetworkId, ReplicaId
from skep.store import egress, endpoints, hosts, networks


class Peering(Telling[NetworkId, NetworkMap]):
    """One per process."""

    subject = "peers"
    nothing = NOBODY

    def __init__(self, database: Database, directory: HostDirectory) -> None:
        super().__init__(database, directory)
        self._following = Following("peers", self._follow)

    def replica_changed(self, replica: ReplicaId) -> None:
        """It began or ceased to run: its names must follow on the other hosts.  Never waits."""
        if len(self._directory.names()) > 1:
            self._following.changed(replica)

    async def close(self) -> None:
        await self._following.close()

    async def _follow(self, taken: set[ReplicaId]) -> None:
        async with self._database.read() as connection:
            chosen = await networks.networks_of(connection, taken)
        await self.announce(chosen)

    async def _maps(
        self, connection: AsyncConnection, time: int, chosen: Collection[NetworkId] | None
    ) -> dict[NetworkId, NetworkMap]:
        """With an empty one for a chosen network that nobody is on: its last host may have to hear of it."""
        found = maps(
            time,
            await networks.attachments(connection, chosen),
            await hosts.every(connection),
            await endpoints.networks(connection, chosen),
            await egress.by_network(connection, chosen),
        )
        return {network: NetworkMap(network, time, (), {}) for network in chosen or ()} | found

    def _empty(self, network: NetworkId) -> NetworkMap:
        return NetworkMap(network, 0, (), {})

    async def _ask(self, name: HostName) -> dict[NetworkId, PeersInForce]:
        return await self._directory.on(name).fabric.peers()

    async def _set(self, name: HostName, place: NetworkMap, at_least: int) -> None:
        await self._directory.on(name).fabric.set_peers(place.seen_from(name, at_least))
