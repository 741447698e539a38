"""Bundles of one database: pushed, activated, rolled back and forgotten while runs go on."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow.bundles import records
from skep.flow.bundles.forgetting import recently, superfluous
from skep.flow.bundles.live import LiveRegistry
from skep.flow.bundles.loading import VersionLoader
from skep.flow.bundles.migrations import Migrator, migrate_all, preflight
from skep.flow.bundles.package import Package
from skep.flow.bundles.preflight import Preflight
from skep.flow.bundles.records import BundleInfo
from skep.flow.bundles.refusals import UnknownBundle
from skep.flow.bundles.shelf import Shelf
from skep.flow.bundles.switch import Switch
from skep.flow.bundles.version import Version
from skep.flow.bundles.view import View
from skep.flow.definition.registry import Registry
from skep.flow.storage.database import Database

log = structlog.get_logger(__name__)

IDLE = 60.0
"""Seconds a version is kept after it was in force: somebody may be about to begin a run of it."""


class Bundles:
    """Give `registry` to the engine, and open this before it (`async with`).

    Several processes may share the database: each has its own `Bundles`, and learns of what others activate
    at its next `refresh`.  Until then it begins runs with what it has.
    """

    def __init__(
        self,
        database: Database,
        base: Registry,
        loader: VersionLoader,
        *,
        clock: Callable[[], float] = time.time,
        idle: float = IDLE,
    ) -> None:
        self.registry = LiveRegistry(base)
        self.shelf = Shelf(database, loader, self.registry)
        self._database = database
        self._loader = loader
        self._clock = clock
        self._idle = idle
        self._switch = Switch(database, self.shelf, self.registry, clock)

    async def __aenter__(self) -> Self:
        await self.refresh()
        async with self._database.read() as connection:
            pinned = await self.shelf.pinned(connection)
        await self.shelf.try_to_ensure(pinned)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it after the engine: steps may still be under way before."""
        await self.shelf.close()
        await self._loader.close()

    # looking

    def view(self) -> View:
        """The program and the active bundles as they are now; never changes."""
        return self.registry.view

    async def list(self) -> list[BundleInfo]:
        """All versions, newest first."""
        async with self._database.read() as connection:
            return await records.infos(connection)

    async def active(self) -> dict[str, BundleInfo]:
        """What is in force, by name."""
        return {info.name: info for info in await self.list() if info.active}

    async def find(self, reference: str) -> BundleInfo:
        """By hash, by the beginning of one (8 digits at least), or by a name: its newest version.

        Raises:
            UnknownBundle: none, or several.
        """
        infos = await self.list()
        matching = [info for info in infos if len(reference) >= 8 and info.hash.startswith(reference)]
        found = matching or [info for info in infos if info.name == reference][:1]
        if len(found) != 1:
            raise UnknownBundle(f"there {'are several bundles' if found else 'is no bundle'} {reference!r}")
        return found[0]

    async def preflight(self, reference: str) -> Preflight:
        """What would become of the runs under way if this version were activated.

        Raises:
            UnknownBundle, BundleRefused: it does not go together with what is active.
        """
        info = await self.find(reference)
        async with self._switch.changing:
            return await self._preflight(info, await self._switch.view_with(info.name, info.hash))

    # changing

    async def push(self, source: Path | bytes, by: str = "") -> BundleInfo:
        """Check a bundle, from its directory or packed, as far as it can be checked, and keep it.

        Its code is loaded in a process of its own; its flows are wired with the program and what is active.

        Raises:
            BundleRefused: with every reason.  Nothing is kept then.
        """
        read = Package.of_content if isinstance(source, bytes) else Package.of_directory
        package = await asyncio.to_thread(read, source)  # type: ignore[arg-type]
        manifest = package.manifest
        with suppress(UnknownBundle):
            return await self.find(package.hash)
        stored = await self._loader.check(package)
        async with self._switch.changing:
            await self._switch.refresh()
            candidate = await self._loader.load(package, stored)
            try:
                self._switch.compose(manifest.bundle, candidate)
            finally:
                await candidate.close()
        info = BundleInfo(
            hash=package.hash,
            name=manifest.bundle,
            version=manifest.version,
            manifest=manifest,
            by=by,
            at=self._clock(),
        )
        await self._database.write(lambda c: records.add(c, info, stored.description, package.content))
        log.info("flow.bundle_pushed", bundle=info.name, version=info.version, hash=info.hash, by=by)
        return await self.find(package.hash)

    async def activate(self, reference: str, by: str = "", migrate: Migrator | None = None) -> Preflight:
        """Have new runs use this version from now on; runs under way stay with theirs.

        `migrate`: the engine, to move those that can be moved; answers what became of each.

        Raises:
            UnknownBundle, BundleRefused: it does not go together with what is active; nothing changed.
        """
        info = await self.find(reference)
        async with self._switch.changing:
            found = Preflight(info.hash, ())
            view = await self._switch.to(info.name, info.hash, by)
            if migrate is not None:
                found = await self._preflight(info, view)
        return found if migrate is None else await migrate_all(self._database, migrate, found, view, by)

    async def rollback(self, name: str, by: str = "") -> BundleInfo:
        """Activate the version that was in force before the one that is now.

        Raises:
            UnknownBundle: there is none.
        """
        async with self._database.read() as connection:
            past = await records.activations(connection, name)
            known = {info.hash for info in await records.infos(connection)}
        current = past[0].hash if past else None
        before = [entry.hash for entry in past if entry.hash != current and entry.hash in known]
        if not before or before[0] is None:
            raise UnknownBundle(f"there is no version of {name!r} to go back to")
        await self.activate(before[0], by)
        return await self.find(before[0])

    async def deactivate(self, name: str, by: str = "") -> None:
        """Have no version in force.

        Raises:
            UnknownBundle: none is.
            BundleRefused: something active needs it.
        """
        async with self._switch.changing:
            await self._switch.refresh()
            if name not in self._switch.active:
                raise UnknownBundle(f"no version of {name!r} is active")
            await self._switch.to(name, None, by)

    async def gc(self, keep: int = 3) -> Sequence[BundleInfo]:
        """Forget versions: never one that is active, was so just now, or is needed by an unfinished run.

        Of each name the newest `keep` are kept.  Answers those that were deleted; what is kept but not needed
        leaves memory.
        """
        async with self._switch.changing:
            await self._switch.refresh()
            gone = await self._database.write(lambda connection: self._delete(connection, keep))
            async with self._database.read() as connection:
                needed = await self.shelf.pinned(connection) | self._switch.recent(self._idle)
            await self.shelf.unload([found for found in self.shelf.loaded if found not in needed])
            await self._tidy(gone)
        return gone

    # what others did

    async def refresh(self) -> bool:
        """See what others have activated; True if new runs are different now."""
        async with self._switch.changing:
            return await self._switch.refresh()

    async def watch(self, every: float = 2.0) -> None:
        """Refresh for ever; to be run as a task where several processes share the database."""
        while True:
            await asyncio.sleep(every)
            try:
                await self.refresh()
            except Exception as error:
                log.warning("flow.bundles_not_refreshed", error=str(error))

    async def ensure(self, hash: str) -> Version:  # noqa: A002
        """The version, fetched and loaded if this process lacks it.  Raises UnknownBundle, BundleRefused."""
        return await self.shelf.ensure(hash)

    async def prepare(self, definitions: Iterable[bytes]) -> None:
        """Before runs are taken over: load what their stored plans need, as far as that is possible."""
        await self.shelf.prepare(definitions)

    def on_unload(self, callback: Callable[[str], None]) -> None:
        """Call it with the hash of each version that leaves memory."""
        self.shelf.unloaded.append(callback)

    async def _preflight(self, info: BundleInfo, view: View) -> Preflight:
        others = {found.hash for found in await self.list() if found.name == info.name} - {info.hash}
        return await preflight(self._database, self.shelf, info.hash, frozenset(others), view)

    # forgetting

    async def _delete(self, connection: AsyncConnection, keep: int) -> Sequence[BundleInfo]:
        past = recently(await records.activations(connection), self._clock() - self._idle)
        needed = await self.shelf.pinned(connection) | self._switch.recent(self._idle) | past
        gone = superfluous(await records.infos(connection), needed, keep)
        await records.delete_bundles(connection, [info.hash for info in gone])
        return gone

    async def _tidy(self, gone: Sequence[BundleInfo]) -> None:
        for info in gone:
            log.info("flow.bundle_deleted", bundle=info.name, version=info.version, hash=info.hash)
        async with self._database.read() as connection:
            kept = [info.hash for info in await records.infos(connection) if info.manifest.requirements]
            found = [await records.content(connection, item) for item in kept]
        packages = [Package.of_content(item[1]) for item in found if item is not None]
        await self._loader.forget([info.hash for info in gone], packages)
