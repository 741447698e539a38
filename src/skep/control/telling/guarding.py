"""Telling hosts what guards their ports."""

from collections.abc import Collection

from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.telling.guards import NOTHING, GuardMap, guard_maps
from skep.control.telling.telling import Telling
from skep.model.host import PeersInForce
from skep.model.ids import HostName, NetworkId
from skep.store import groups


class Guarding(Telling[NetworkId, GuardMap]):
    """One per process."""

    subject = "guards"
    nothing = NOTHING

    async def _maps(
        self, connection: AsyncConnection, time: int, chosen: Collection[NetworkId] | None
    ) -> dict[NetworkId, GuardMap]:
        members = await groups.members(connection, chosen)
        return guard_maps(time, members, await groups.every(connection) if members else [])

    def _empty(self, network: NetworkId) -> GuardMap:
        return GuardMap(network, 0, (), {})

    async def _ask(self, name: HostName) -> dict[NetworkId, PeersInForce]:
        return await self._directory.on(name).fabric.guards()

    async def _set(self, name: HostName, place: GuardMap, at_least: int) -> None:
        await self._directory.on(name).fabric.set_guards(place.seen_from(name, at_least))
