"""Telling hosts who is where on their networks: at once by steps that change it, and again by the reconciler.

No number is kept of what was told: a generation is the time by the database's clock *before* the rows were
read.  So a younger one was made of rows at least as new as all that was committed before it, and whoever
commits a change tells it with a younger generation than any that may lack it.
"""

import asyncio
from collections.abc import Collection, Iterable

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.host_directory import HostDirectory
from skep.control.peers import NOBODY, NetworkMap, maps
from skep.control.ports import Host
from skep.flow import Database
from skep.flow.storage.shared import now
from skep.model.errors import NotFound, SkepError, Stale
from skep.model.host import PeersInForce
from skep.model.ids import HostName, NetworkId, ReplicaId
from skep.store import endpoints, hosts, networks

PATIENCE = 5.0
"""Seconds that a step waits for other hosts to hear of its change."""

log = structlog.get_logger("skep.peering")

Known = dict[NetworkId, PeersInForce]


class Peering:
    """One per process.  What hosts were told last is remembered, so that nothing is told twice in a row."""

    def __init__(self, database: Database, directory: HostDirectory) -> None:
        self._database = database
        self._directory = directory
        self._told: dict[tuple[HostName, NetworkId], str] = {}
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

    async def announce(self, chosen: Collection[NetworkId]) -> None:
        """Tell every host of these networks what changed; who does not hear it now hears it later."""
        found = await self._read(chosen)
        work = [self._tell(host, place) for place in found.values() for host in self._outdated(place)]
        try:
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*work)
        except TimeoutError:
            log.warning("peers.unheard", networks=sorted(chosen))

    def forget(self, host: HostName, network: NetworkId) -> None:
        """The host may have lost what it was told."""
        self._told.pop((host, network), None)

    async def reconcile(self) -> None:
        """Tell every host what it does not know, whoever told it last.

        What hosts have is asked before the rows are read: then these are newer, whatever the clock says.
        """
        names = [name for name in self._directory.names() if not self._directory.why_silent(name)]
        if len(names) < 2:
            return
        known = dict(zip(names, await asyncio.gather(*map(self._known, names)), strict=True))
        found = await self._read(None)
        await asyncio.gather(
            *(
                self._tell(name, place, there[place.network].generation + 1 if place.network in there else 0)
                for name, there in known.items()
                if there is not None
                for place in _places(found, there)
                if place.digest_from(name) != self._remember(name, place.network, there)
            )
        )

    def _outdated(self, place: NetworkMap) -> list[HostName]:
        return [
            name
            for name in place.hosts
            if self._told.get((name, place.network), NOBODY) != place.digest_from(name)
        ]

    def _remember(self, name: HostName, network: NetworkId, there: Known) -> str:
        digest = there[network].digest if network in there else NOBODY
        self._told[name, network] = digest
        return digest

    async def _known(self, name: HostName) -> Known | None:
        """None: the host does not answer now."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._on(name).fabric.peers()
        except (SkepError, TimeoutError) as error:
            log.warning("peers.unknown", host=name, error=str(error))
            return None

    async def _tell(self, name: HostName, place: NetworkMap, at_least: int = 0) -> None:
        """A host without the network hears of its peers when something is plugged there."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._on(name).fabric.set_peers(place.seen_from(name, at_least))
        except (NotFound, Stale):
            return  # not there yet; or somebody told it something younger meanwhile
        except (SkepError, TimeoutError) as error:
            log.warning("peers.untold", host=name, network=place.network, error=str(error))
            return
        self._told[name, place.network] = place.digest_from(name)

    def _on(self, name: HostName) -> Host:
        return self._directory.on(name)

    async def _read(self, chosen: Collection[NetworkId] | None) -> dict[NetworkId, NetworkMap]:
        async with self._database.read() as connection:
            return maps(
                await generation(connection),
                await networks.attachments(connection, chosen),
                await hosts.every(connection),
                await endpoints.networks(connection, chosen),
            )


async def generation(connection: AsyncConnection) -> int:
    """Microseconds since 1970."""
    time = (await connection.execute(sa.select(now(connection)))).scalar_one()
    return int(time * 1_000_000)


def _places(found: dict[NetworkId, NetworkMap], there: Known) -> Iterable[NetworkMap]:
    """The maps, with an empty one for what a host was told of and nobody is on any more."""
    gone = [NetworkMap(network, 0, (), {}) for network in there.keys() - found.keys()]
    return [*found.values(), *gone]
