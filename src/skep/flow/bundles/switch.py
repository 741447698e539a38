"""What is in force in this process, and the change of it: checked as a whole, durable, then seen at once."""

import asyncio
from collections.abc import Callable

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow.bundles import records
from skep.flow.bundles.live import LiveRegistry
from skep.flow.bundles.refusals import BundleRefused
from skep.flow.bundles.shelf import Shelf
from skep.flow.bundles.version import Version
from skep.flow.bundles.view import View
from skep.flow.steps import Retry
from skep.flow.storage.database import Database
from skep.flow.storage.wakeups import tell

log = structlog.get_logger(__name__)

BUNDLES = "bundles"
"""The topic of wake-ups that says: something was activated."""
_TRIES = 10


class Switch:
    """`active` maps names to hashes.  Hold `changing` for every call but `recent`."""

    def __init__(
        self, database: Database, shelf: Shelf, registry: LiveRegistry, clock: Callable[[], float]
    ) -> None:
        self.changing = asyncio.Lock()
        self.active: dict[str, str] = {}
        self._database = database
        self._shelf = shelf
        self._registry = registry
        self._clock = clock
        self._newest = 0
        self._in_force: dict[str, float] = {}
        """When each version was seen in force last."""

    async def refresh(self) -> bool:
        """See what others have activated; True if new runs are different now."""
        async with self._database.read() as connection:
            newest = await records.newest(connection)
        self._newest = max((entry.id for entry in newest.values()), default=0)
        wanted = {name: entry.hash for name, entry in newest.items() if entry.hash is not None}
        if wanted == self.active:
            return False
        loaded = await self._shelf.try_to_ensure(wanted.values())
        usable = {name: found for name, found in wanted.items() if found in loaded}
        kept = {name: found for name, found in self.active.items() if name in wanted and name not in usable}
        view = self._view(usable | kept)
        for problem in view.problems():
            log.error("flow.bundles_do_not_fit", problem=problem)
        self._put_in_force(view, usable | kept)
        return True

    async def to(self, name: str, hash: str | None, by: str) -> View:  # noqa: A002
        """Once it is durable new runs see it, with nothing in between.

        Raises:
            BundleRefused: it does not go together with what is active; nothing changed.
        """
        for _ in range(_TRIES):
            await self.refresh()
            view = await self.view_with(name, hash)
            if hash is not None:
                await _warm(self._shelf.loaded[hash])
            seen = self._newest
            recorded = await self._database.write(lambda c, seen=seen: self._record(c, seen, name, hash, by))  # type: ignore[misc]
            if recorded:
                active = {key: value for key, value in self.active.items() if key != name}
                self._put_in_force(view, active | ({} if hash is None else {name: hash}))
                self._newest = recorded
                log.info("flow.bundle_activated", bundle=name, hash=hash, by=by)
                return view
        raise BundleRefused(["others activate bundles all the time; try again"])

    async def _record(
        self,
        connection: AsyncConnection,
        seen: int,
        name: str,
        hash: str | None,  # noqa: A002
        by: str,
    ) -> int:
        """0 if others have activated something meanwhile: the check was of something else."""
        await records.lock_activations(connection)
        newest = await records.newest(connection)
        if max((entry.id for entry in newest.values()), default=0) != seen:
            return 0
        await records.activate(connection, name, hash, by, self._clock())
        await tell(connection, BUNDLES)
        return (await records.newest(connection))[name].id

    def _put_in_force(self, view: View, active: dict[str, str]) -> None:
        now = self._clock()
        self._in_force |= dict.fromkeys([*self.active.values(), *active.values()], now)
        self.active = active
        self._registry.switch(view)

    async def view_with(self, name: str, hash: str | None) -> View:  # noqa: A002
        """What is active with this version in place of the one of that name.  Raises BundleRefused."""
        return self.compose(name, None if hash is None else await self._shelf.ensure(hash))

    def compose(self, name: str, version: Version | None) -> View:
        """The same of a version at hand."""
        others = [self._shelf.loaded[found] for key, found in sorted(self.active.items()) if key != name]
        view = View(self._registry.base, others if version is None else [*others, version])
        if problems := view.problems():
            raise BundleRefused(problems)
        return view

    def _view(self, active: dict[str, str]) -> View:
        return View(self._registry.base, [self._shelf.loaded[found] for _, found in sorted(active.items())])

    def recent(self, idle: float) -> frozenset[str]:
        """In force now, or less than `idle` seconds ago."""
        since = self._clock() - idle
        recent = {found for found, at in self._in_force.items() if at > since}
        return frozenset({*recent, *self.active.values()})


async def _warm(version: Version) -> None:
    """Its process is there before the first run asks for it."""
    if version.isolation is not None:
        try:
            await version.isolation.warm()
        except Retry as error:
            raise BundleRefused([str(error)]) from error
