"""Telling hosts who is where on their networks."""

import asyncio
from collections.abc import Collection

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.host_directory import HostDirectory
from skep.control.peers import NOBODY, NetworkMap, maps
from skep.control.ports import Fabric
from skep.control.telling import Known, Telling
from skep.flow import Database
from skep.model.ids import HostName, NetworkId, ReplicaId
from skep.store import egress, endpoints, hosts, networks

log = structlog.get_logger("skep.peering")


class Peering(Telling[NetworkMap]):
    """One per process."""

    subject = "peers"
    nothing = NOBODY

    def __init__(self, database: Database, directory: HostDirectory) -> None:
        super().__init__(database, directory)
        self._changed: set[ReplicaId] = set()
        self._following: asyncio.Task[None] | None = None

    def replica_changed(self, replica: ReplicaId) -> None:
        """It began or ceased to run: its names must follow on the other hosts.  Never waits."""
        if len(self._directory.names()) < 2:
            return
        self._changed.add(replica)
        if self._following is None or self._following.done():
            self._following = asyncio.get_running_loop().create_task(self._follow(), name="peering")

    async def close(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)

    async def _follow(self) -> None:
        """What changed while the last change was told is told together."""
        while self._changed:
            taken, self._changed = self._changed, set()
            try:
                async with self._database.read() as connection:
                    chosen = await networks.networks_of(connection, taken)
                await self.announce(chosen)
            except Exception:
                log.exception("peers.failed")

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

    async def _ask(self, fabric: Fabric) -> Known:
        return await fabric.peers()

    async def _set(self, fabric: Fabric, host: HostName, place: NetworkMap, at_least: int) -> None:
        await fabric.set_peers(place.seen_from(host, at_least))
