"""Telling hosts something of networks or apps: at once by whoever changes it, and again by the reconciler.

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
from skep.control.telling.gathering import Gathering
from skep.flow import Database
from skep.flow.storage.shared import now
from skep.model.errors import NotFound, SkepError, Stale, Unsupported
from skep.model.host import PeersInForce
from skep.model.ids import HostName

PATIENCE = 5.0
"""Seconds that others may take to hear of a change before it goes on without them."""

log = structlog.get_logger("skep.telling")


class Map(Protocol):
    """What there is to tell of one network or app, as the rows have it."""

    @property
    def hosts(self) -> Collection[HostName]:
        """Who must know it."""

    def digest_from(self, host: HostName) -> str:
        """Of what the host must know."""


K = TypeVar("K", bound=str)
"""Whose maps they are: a network's, an app's."""
M = TypeVar("M", bound=Map)


class Telling(ABC, Generic[K, M]):
    """One per process.  What hosts were told last is remembered, so that nothing is told twice in a row."""

    subject: ClassVar[str]
    """In the log."""
    nothing: ClassVar[str]
    """The digest of what a host knows that was told nothing."""
    needless: ClassVar[tuple[type[SkepError], ...]] = (NotFound, Stale, Unsupported)
    """How a host answers that need not hear it: it has no such network, and hears when something is plugged
    there; somebody told it something younger meanwhile; it is too old."""

    def __init__(self, database: Database, directory: HostDirectory) -> None:
        self._database = database
        self._directory = directory
        self._told: dict[tuple[HostName, K], str] = {}
        self._gathering: Gathering[K, M] = Gathering(self._read)

    async def prepare(self, host: HostName, key: K) -> None:
        """Before a port is plugged the host must know what is to be told, or nothing may be plugged.

        Raises:
            NotFound: the network is not ensured there.
            SkepError: the host does not take it.
        """
        place = (await self._gathering.of([key])).get(key) or self._empty(key)
        if {self._told.get((host, key), self.nothing), place.digest_from(host)} != {self.nothing}:
            with suppress(Stale):  # somebody told it something younger, which knows of the port, too
                await self._tell(host, key, place)

    async def announce(self, chosen: Collection[K], left: Collection[HostName] = ()) -> set[HostName]:
        """Tell every host concerned what changed of these, and those that left them, if they are known.

        Answers who has not heard it, and will later.
        """
        found = await self._gathering.of(chosen)
        work = [(host, key) for key, place in found.items() for host in self._outdated(key, place, left)]
        heard = await asyncio.gather(*(self._try(host, key, found[key]) for host, key in work))
        return {host for (host, _), told in zip(work, heard, strict=True) if not told}

    def forget(self, host: HostName, key: K) -> None:
        """The host may have lost what it was told."""
        self._told.pop((host, key), None)

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
            *(self._catch_up(name, there, found) for name, there in known.items() if there is not None)
        )

    @abstractmethod
    async def _maps(self, connection: AsyncConnection, time: int, chosen: Collection[K] | None) -> dict[K, M]:
        """Of the chosen (None: of all) those of which there is something to tell."""

    @abstractmethod
    def _empty(self, key: K) -> M:
        """A map of what there is nothing to tell of."""

    @abstractmethod
    async def _ask(self, name: HostName) -> dict[K, PeersInForce]:
        """What the host was told."""

    @abstractmethod
    async def _set(self, name: HostName, place: M, at_least: int) -> None:
        """Tell it.  Raises SkepError."""

    async def _catch_up(self, name: HostName, there: dict[K, PeersInForce], found: dict[K, M]) -> None:
        await asyncio.gather(
            *(
                self._try(name, key, place, there[key].generation + 1 if key in there else 0)
                for key, place in self._places(found, there)
                if place.digest_from(name) != self._remember(name, key, there)
            )
        )

    async def _read(self, chosen: Collection[K] | None) -> dict[K, M]:
        async with self._database.read() as connection:
            return await self._maps(connection, await generation(connection), chosen)

    def _outdated(self, key: K, place: M, left: Collection[HostName]) -> list[HostName]:
        return [
            name
            for name in {*place.hosts, *left}
            if self._told.get((name, key), self.nothing) != place.digest_from(name)
        ]

    def _places(self, found: dict[K, M], there: dict[K, PeersInForce]) -> Iterable[tuple[K, M]]:
        """The maps, with an empty one for what a host was told of and there is nothing to tell any more."""
        return [*found.items(), *((key, self._empty(key)) for key in there.keys() - found.keys())]

    def _remember(self, name: HostName, key: K, there: dict[K, PeersInForce]) -> str:
        digest = there[key].digest if key in there else self.nothing
        self._told[name, key] = digest
        return digest

    async def _known(self, name: HostName) -> dict[K, PeersInForce] | None:
        """None: the host does not answer now, or is too old to know of it."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._ask(name)
        except (SkepError, TimeoutError) as error:
            log.warning(f"{self.subject}.unknown", host=name, error=str(error))
            return None

    async def _try(self, name: HostName, key: K, place: M, at_least: int = 0) -> bool:
        """Whether it was heard, or need not be."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._tell(name, key, place, at_least)
        except self.needless:
            return True
        except (SkepError, TimeoutError) as error:
            log.warning(f"{self.subject}.untold", host=name, of=key, error=str(error))
            return False
        return True

    async def _tell(self, name: HostName, key: K, place: M, at_least: int = 0) -> None:
        await self._set(name, place, at_least)
        self._told[name, key] = place.digest_from(name)


async def generation(connection: AsyncConnection) -> int:
    """Microseconds since 1970."""
    time = (await connection.execute(sa.select(now(connection)))).scalar_one()
    return int(time * 1_000_000)
