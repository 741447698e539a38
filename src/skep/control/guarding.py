"""Telling hosts what guards their ports: at once by whoever changes it, and again by the reconciler.

As with peers (`peering.py`) no number is kept of what was told: a generation is the time by the database's
clock before the rows were read.
"""

import asyncio
from collections.abc import Collection, Iterable
from contextlib import suppress

import structlog

from skep.control.guards import NOTHING, GuardMap, guard_maps
from skep.control.host_directory import HostDirectory
from skep.control.peering import generation
from skep.flow import Database
from skep.model.errors import NotFound, SkepError, Stale
from skep.model.host import PeersInForce
from skep.model.ids import HostName, NetworkId
from skep.store import groups

PATIENCE = 5.0
"""Seconds that others may take to hear of a change before it goes on without them."""

log = structlog.get_logger("skep.guarding")

Known = dict[NetworkId, PeersInForce]


class Guarding:
    """One per process.  What hosts were told last is remembered, so that nothing is told twice in a row."""

    def __init__(self, database: Database, directory: HostDirectory) -> None:
        self._database = database
        self._directory = directory
        self._told: dict[tuple[HostName, NetworkId], str] = {}

    async def prepare(self, host: HostName, network: NetworkId) -> None:
        """Before a port is plugged: the host must know what guards it, or nothing may be plugged.

        Raises:
            NotFound: the network is not ensured there.
            SkepError: the host does not take it.
        """
        place = (await self._read([network])).get(network) or GuardMap(network, 0, (), {})
        if {self._told.get((host, network), NOTHING), place.digest_from(host)} != {NOTHING}:
            with suppress(Stale):  # somebody told it something younger, which knows of the port, too
                await self._tell(host, place)

    async def announce(self, chosen: Collection[NetworkId]) -> None:
        """Tell every host of these networks what changed; who does not hear it now hears it later."""
        found = await self._read(chosen)
        work = [self._try(host, place) for place in found.values() for host in self._outdated(place)]
        try:
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*work)
        except TimeoutError:
            log.warning("guards.unheard", networks=sorted(chosen))

    def forget(self, host: HostName, network: NetworkId) -> None:
        """The host may have lost what it was told."""
        self._told.pop((host, network), None)

    async def reconcile(self) -> None:
        """Tell every host what it does not know, whoever told it last.

        What hosts have is asked before the rows are read: then these are newer, whatever the clock says.
        """
        names = [name for name in self._directory.names() if not self._directory.why_silent(name)]
        known = dict(zip(names, await asyncio.gather(*map(self._known, names)), strict=True))
        found = await self._read(None)
        await asyncio.gather(
            *(
                self._try(name, place, there[place.network].generation + 1 if place.network in there else 0)
                for name, there in known.items()
                if there is not None
                for place in _places(found, there)
                if place.digest_from(name) != self._remember(name, place.network, there)
            )
        )

    def _outdated(self, place: GuardMap) -> list[HostName]:
        return [
            name
            for name in place.hosts
            if self._told.get((name, place.network), NOTHING) != place.digest_from(name)
        ]

    def _remember(self, name: HostName, network: NetworkId, there: Known) -> str:
        digest = there[network].digest if network in there else NOTHING
        self._told[name, network] = digest
        return digest

    async def _known(self, name: HostName) -> Known | None:
        """None: the host does not answer now, or is too old to know of guards."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._directory.on(name).fabric.guards()
        except (SkepError, TimeoutError) as error:
            log.warning("guards.unknown", host=name, error=str(error))
            return None

    async def _try(self, name: HostName, place: GuardMap, at_least: int = 0) -> None:
        """A host without the network hears of its guards when something is plugged there."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._tell(name, place, at_least)
        except (NotFound, Stale):
            return  # not there yet; or somebody told it something younger meanwhile
        except (SkepError, TimeoutError) as error:
            log.warning("guards.untold", host=name, network=place.network, error=str(error))

    async def _tell(self, name: HostName, place: GuardMap, at_least: int = 0) -> None:
        told = place.seen_from(name, at_least)
        await self._directory.on(name).fabric.set_guards(told)
        self._told[name, place.network] = told.digest

    async def _read(self, chosen: Collection[NetworkId] | None) -> dict[NetworkId, GuardMap]:
        async with self._database.read() as connection:
            time = await generation(connection)
            members = await groups.members(connection, chosen)
            known = await groups.every(connection) if members else []
        return guard_maps(time, members, known)


def _places(found: dict[NetworkId, GuardMap], there: Known) -> Iterable[GuardMap]:
    """The maps, with an empty one for what a host was told of and nothing guards any more."""
    gone = [GuardMap(network, 0, (), {}) for network in there.keys() - found.keys()]
    return [*found.values(), *gone]
