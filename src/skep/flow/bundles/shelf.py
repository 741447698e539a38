"""The versions that this process has in memory: fetched from the database when they are needed."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow.bundles import records
from skep.flow.bundles.live import LiveRegistry
from skep.flow.bundles.loading import VersionLoader
from skep.flow.bundles.package import Package
from skep.flow.bundles.refusals import BundleRefused, UnknownBundle
from skep.flow.bundles.version import Version
from skep.flow.definition.binding import every_step, read
from skep.flow.definition.plan import Plan
from skep.flow.errors import FlowFault, Unloadable
from skep.flow.storage.database import Database

log = structlog.get_logger(__name__)


def pins_of(plan: Plan) -> frozenset[str]:
    """The hashes of the bundles that the plan needs."""
    return frozenset({plan.bundle, *(step.bundle for step in every_step(plan.steps))} - {""})


class Shelf:
    """Loads versions into the registry and takes them out again.  `unloaded` are told which have gone."""

    def __init__(self, database: Database, loader: VersionLoader, registry: LiveRegistry) -> None:
        self.unloaded: list[Callable[[str], None]] = []
        self._database = database
        self._loader = loader
        self._registry = registry
        self._loading: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._pins: dict[str, frozenset[str]] = {}

    @property
    def loaded(self) -> dict[str, Version]:
        return self._registry.loaded

    async def ensure(self, hash: str) -> Version:  # noqa: A002
        """The version, loaded if it was not.

        Raises:
            UnknownBundle: the database has none of that hash.
            BundleRefused: it cannot be loaded here.
        """
        async with self._loading[hash]:
            if hash not in self.loaded:
                try:
                    self.loaded[hash] = await self._fetch(hash)
                except (FlowFault, OSError) as error:
                    self._registry.faults[hash] = str(error)
                    raise
                self._registry.faults.pop(hash, None)
            return self.loaded[hash]

    async def try_to_ensure(self, hashes: Iterable[str]) -> dict[str, Version]:
        """Those that can be loaded; why others cannot goes to the log, and to whoever asks for their code."""
        found = {}
        for item in hashes:
            try:
                found[item] = await self.ensure(item)
            except (FlowFault, OSError) as error:
                log.error("flow.bundle_unloadable", bundle=item[:12], error=str(error))
        return found

    async def prepare(self, definitions: Iterable[bytes]) -> None:
        """Load what these stored plans need, as far as that is possible."""
        await self.try_to_ensure({pin for content in definitions for pin in _pins_in(content)})

    async def pinned(self, connection: AsyncConnection) -> frozenset[str]:
        """The versions that unfinished runs need."""
        used, contents = await records.definitions_in_use(connection, self._pins)
        self._pins |= {key: _pins_in(content) for key, content in contents.items()}
        self._pins = {key: pins for key, pins in self._pins.items() if key in used}
        return frozenset(pin for pins in self._pins.values() for pin in pins)

    async def unload(self, hashes: Iterable[str]) -> None:
        """Out of memory: their processes end, their modules go when nothing uses them any more."""
        for item in hashes:
            version = self.loaded.pop(item, None)
            if version is not None:
                await version.close()
                for callback in self.unloaded:
                    callback(item)

    async def close(self) -> None:
        await self.unload(list(self.loaded))

    async def _fetch(self, hash: str) -> Version:  # noqa: A002
        async with self._database.read() as connection:
            found = await records.content(connection, hash)
        if found is None:
            raise UnknownBundle(f"there is no bundle {hash[:12]}")
        stored, content = found
        package = await asyncio.to_thread(Package.of_content, content)
        if package.hash != hash:
            raise BundleRefused([f"what is stored as {hash[:12]} is not what was pushed"])
        return await self._loader.load(package, stored)


def _pins_in(content: bytes) -> frozenset[str]:
    try:
        return pins_of(read(content))
    except Unloadable:
        return frozenset()
