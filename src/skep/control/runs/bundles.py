"""Bundles: flows and plug-in code that operators push, switch on and take back while runs go on."""

import msgspec

from skep.control.callers import Caller
from skep.control.clock import rfc3339
from skep.control.runs.flow_faults import translated
from skep.flow import FlowEngine
from skep.flow.bundles import bundles
from skep.flow.bundles.preflight import Preflight
from skep.flow.bundles.records import BundleInfo
from skep.model.views.bundles import BundleView, FateView, PreflightView


class Bundles:
    """What is pushed runs with the rights that it declares; all of it is for operators."""

    def __init__(self, shelf: bundles.Bundles, engine: FlowEngine) -> None:
        self._shelf = shelf
        self._engine = engine

    async def show(self, caller: Caller, reference: str) -> BundleView:
        """By hash, by its beginning (8 digits at least), or by name: its newest version."""
        caller.must_operate()
        with translated():
            return _view(await self._shelf.find(reference))

    async def push(self, caller: Caller, content: bytes) -> BundleView:
        """Check a packed bundle as far as it can be checked, and keep it; the same one again is success.

        Raises:
            InvalidInput: with every reason why it is refused.
        """
        caller.must_operate()
        with translated():
            return _view(await self._shelf.push(content, by=caller.user_name))

    async def preflight(self, caller: Caller, reference: str) -> PreflightView:
        """What would become of the runs under way if this version were activated."""
        caller.must_operate()
        with translated():
            found = await self._shelf.preflight(reference)
            return await self._judged(found)

    async def activate(self, caller: Caller, reference: str, *, migrate: bool = False) -> PreflightView:
        """Have new runs use this version from now on; with `migrate` move the runs that can be moved.

        Raises:
            InvalidInput: it does not go together with what is active; nothing changed.
        """
        caller.must_operate()
        with translated():
            engine = self._engine if migrate else None
            found = await self._shelf.activate(reference, by=caller.user_name, migrate=engine)
            return await self._judged(found)

    async def rollback(self, caller: Caller, name: str) -> BundleView:
        """Activate the version that was in force before."""
        caller.must_operate()
        with translated():
            return _view(await self._shelf.rollback(name, by=caller.user_name))

    async def deactivate(self, caller: Caller, name: str) -> None:
        """Have no version of it in force.  Raises InvalidInput: something active needs it."""
        caller.must_operate()
        with translated():
            await self._shelf.deactivate(name, by=caller.user_name)

    async def collect(self, caller: Caller, *, keep: int = 3) -> list[BundleView]:
        """Forget versions that nobody needs, but of each name the newest `keep`; answers what is gone."""
        caller.must_operate()
        return [_view(info) for info in await self._shelf.gc(keep)]

    async def list(self, caller: Caller) -> list[BundleView]:
        """Newest first."""
        caller.must_operate()
        return [_view(info) for info in await self._shelf.list()]

    async def _judged(self, found: Preflight) -> PreflightView:
        info = await self._shelf.find(found.hash)
        fates = [
            FateView(run=fate.run, flow=fate.flow, verdict=fate.verdict, reasons=fate.reasons)
            for fate in found.fates
        ]
        return PreflightView(bundle=_view(info), fates=tuple(fates))


def _view(info: BundleInfo) -> BundleView:
    manifest = info.manifest
    return BundleView(
        hash=info.hash,
        name=info.name,
        version=info.version,
        description=manifest.description,
        active=info.active,
        process=manifest.process,
        steps=manifest.steps,
        requirements=manifest.requirements,
        rights={key: value for key, value in msgspec.structs.asdict(manifest.rights).items() if value},
        by=info.by,
        pushed=rfc3339(info.at),
    )
