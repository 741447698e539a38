"""Telling hosts something of their networks: at once by whoever changes it, and again by the reconciler.

No number is kept of what was told: a generation is the time by the database's clock *before* the rows were
read.  So a younger one was made of rows at least as new as all that was committed before it, and whoever
commits a change tells it with a younger generation than any that may lack it.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import ClassVar, Generic, Protocol, TypeVar

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.host_directory import HostDirectory
from skep.control.ports import Fabric
from skep.flow import Database
from skep.flow.storage.shared import now
from skep.model.errors import NotFound, SkepError, Stale, Unsupported
from skep.model.host import PeersInForce
from skep.model.ids import HostName, NetworkId

PATIENCE = 5.0
"""Seconds that others may take to hear of a change before it goes on without them."""

log = structlog.get_logger("skep.telling")

Known = dict[NetworkId, PeersInForce]


class NetworkMap(Protocol):
    """What there is to tell of one network, as the rows have it."""

    @property
    def network(self) -> NetworkId: ...

    @property
    def hosts(self) -> Collection[HostName]:
        """Who must know it."""

    def digest_from(self, host: HostName) -> str:
        """Of what the host must know."""


M = TypeVar("M", bound=NetworkMap)


class Telling(ABC, Generic[M]):
    """One per process.  What hosts were told last is remembered, so that nothing is told twice in a row."""

    subject: ClassVar[str]
    """In the log."""
    nothing: ClassVar[str]
    """The digest of what a host knows that was told nothing."""

    def __init__(self, database: Database, directory: HostDirectory) -> None:
        self._database = database
        self._directory = directory
        self._told: dict[tuple[HostName, NetworkId], str] = {}

    async def prepare(self, host: HostName, network: NetworkId) -> None:
        """Before a port is plugged the host must know what is to be told, or nothing may be plugged.

        Raises:
            NotFound: the network is not ensured there.
            SkepError: the host does not take it.
        """
        place = (await self._read([network])).get(network) or self._empty(network)
        if {self._told.get((host, network), self.nothing), place.digest_from(host)} != {self.nothing}:
            with suppress(Stale):  # somebody told it something younger, which knows of the port, too
                await self._tell(host, place)

    async def announce(self, chosen: Collection[NetworkId], left: Collection[HostName] = ()) -> set[HostName]:
        """Tell every host of these networks what changed, and those that left them, if they are known.

        Answers who has not heard it, and will later.
        """
        found = await self._read(chosen)
        work = [(host, place) for place in found.values() for host in self._outdated(place, left)]
        heard = await asyncio.gather(*(self._try(host, place) for host, place in work))
        return {host for (host, _), told in zip(work, heard, strict=True) if not told}

    def forget(self, host: HostName, network: NetworkId) -> None:
        """The host may have lost what it was told."""
        self._told.pop((host, network), None)

    async def reconcile(self) -> None:
        """Tell every host what it does not know, whoever told it last.

        What hosts have is asked before the rows are read: then these are newer, whatever the clock says.
        """
        names = [name for name in self._directory.names() if not self._directory.why_silent(name)]
        if not names:
            return
        known = dict(zip(names, await asyncio.gather(*map(self._known, names)), strict=True))
        found = await self._read(None)
        await asyncio.gather(
            *(
                self._try(name, place, there[place.network].generation + 1 if place.network in there else 0)
                for name, there in known.items()
                if there is not None
                for place in self._places(found, there)
                if place.digest_from(name) != self._remember(name, place.network, there)
            )
        )

    @abstractmethod
    async def _maps(
        self, connection: AsyncConnection, time: int, chosen: Collection[NetworkId] | None
    ) -> dict[NetworkId, M]:
        """Of the chosen networks (None: of all) those of which there is something to tell."""

    @abstractmethod
    def _empty(self, network: NetworkId) -> M:
        """A map of a network of which there is nothing to tell."""

    @abstractmethod
    async def _ask(self, fabric: Fabric) -> Known:
        """What the host was told of its networks."""

    @abstractmethod
    async def _set(self, fabric: Fabric, host: HostName, place: M, at_least: int) -> None:
        """Tell it.  Raises SkepError."""

    async def _read(self, chosen: Collection[NetworkId] | None) -> dict[NetworkId, M]:
        async with self._database.read() as connection:
            return await self._maps(connection, await generation(connection), chosen)

    def _outdated(self, place: M, left: Collection[HostName]) -> list[HostName]:
        return [
            name
            for name in {*place.hosts, *left}
            if self._told.get((name, place.network), self.nothing) != place.digest_from(name)
        ]

    def _places(self, found: dict[NetworkId, M], there: Known) -> Iterable[M]:
        """The maps, with an empty one for what a host was told of and there is nothing to tell any more."""
        return [*found.values(), *(self._empty(network) for network in there.keys() - found.keys())]

    def _remember(self, name: HostName, network: NetworkId, there: Known) -> str:
        digest = there[network].digest if network in there else self.nothing
        self._told[name, network] = digest
        return digest

    async def _known(self, name: HostName) -> Known | None:
        """None: the host does not answer now, or is too old to know of it."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._ask(self._directory.on(name).fabric)
        except (SkepError, TimeoutError) as error:
            log.warning(f"{self.subject}.unknown", host=name, error=str(error))
            return None

    async def _try(self, name: HostName, place: M, at_least: int = 0) -> bool:
        """Whether it was heard.  A host without the network hears of it when something is plugged there."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._tell(name, place, at_least)
        except (NotFound, Stale, Unsupported):
            return True  # not there yet; or somebody told it something younger meanwhile; or it is too old
        except (SkepError, TimeoutError) as error:
            log.warning(f"{self.subject}.untold", host=name, network=place.network, error=str(error))
            return False
        return True

    async def _tell(self, name: HostName, place: M, at_least: int = 0) -> None:
        await self._set(self._directory.on(name).fabric, name, place, at_least)
        self._told[name, place.network] = place.digest_from(name)


async def generation(connection: AsyncConnection) -> int:
    """Microseconds since 1970."""
    time = (await connection.execute(sa.select(now(connection)))).scalar_one()
    return int(time * 1_000_000)
