"""Versions of bundles from their packages: unpacked, checked in a process of their own, and loaded."""

import asyncio
import shutil
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import structlog

from skep.flow.bundles.confinement import python_paths, user_of
from skep.flow.bundles.importing import BundleCode, import_code
from skep.flow.bundles.isolation import Isolation, remote_code
from skep.flow.bundles.namespaces import Namespace
from skep.flow.bundles.nursery import Nursery
from skep.flow.bundles.package import Package
from skep.flow.bundles.process import BundleProcess
from skep.flow.bundles.protocol import Confinement, Description, Setup
from skep.flow.bundles.records import Stored
from skep.flow.bundles.refusals import BundleRefused, NotConfined
from skep.flow.bundles.requirements import Requirements
from skep.flow.bundles.shapes import Known, kinds_of
from skep.flow.bundles.version import Version, named, read_drafts
from skep.flow.definition.catalogue import Code
from skep.flow.definition.hints import Hint
from skep.flow.definition.registry import Registry

log = structlog.get_logger(__name__)


class VersionLoader:
    """Makes versions out of packages; `cache` is a directory of this worker's own.

    `unconfined`: where the system does not permit to confine a process, do without.  `in_worker`: bundles may
    ask for `process: worker`, where nothing confines them.  `patience`: seconds to load the code at push.
    `nursery`: one that is shared with others, and closed by whoever made it.
    """

    def __init__(
        self,
        base: Registry,
        cache: Path,
        *,
        unconfined: bool = False,
        in_worker: bool = True,
        offline: bool = False,
        patience: float = 20.0,
        nursery: Nursery | None = None,
    ) -> None:
        self._base = base
        self._cache = cache
        self._requirements = Requirements(cache / "packages", offline=offline)
        self._unconfined = unconfined
        self._in_worker = in_worker
        self._patience = patience
        self._confined = True
        self._nursery = nursery or Nursery()
        self._owns_nursery = nursery is None

    async def check(self, package: Package) -> Stored:
        """Have a process load the code.

        Raises:
            BundleRefused: with everything that is wrong with the manifest, the documents and the code.
        """
        manifest, reasons = package.manifest, []
        if manifest.process == "worker" and not self._in_worker:
            reasons.append("bundles with 'process: worker' are not allowed here")
        try:
            read_drafts(package)
        except BundleRefused as error:
            reasons += error.reasons
        try:
            description = await self._describe(package)
        except NotConfined:
            raise
        except BundleRefused as error:
            reasons += error.reasons
        if reasons:
            raise BundleRefused(reasons)
        return Stored(manifest, description)

    async def load(self, package: Package, stored: Stored) -> Version:
        """Make it ready; code of its own process is started when it is called.

        Raises:
            BundleRefused: it cannot be loaded here.
        """
        home = await self._unpack(package)
        drafts = read_drafts(package)
        if stored.manifest.process == "worker":
            namespace = Namespace(package.hash, home)
            code = await asyncio.to_thread(self._import, package, namespace, home)
            if code.reasons:
                namespace.unload()
                raise BundleRefused(code.reasons)
            return Version(package.hash, stored.manifest, code.steps, code.types, drafts, namespace=namespace)
        packages = await self._requirements.install(package, home)
        isolation = Isolation(
            self._nursery,
            named(stored.manifest, package.hash),
            self._setup(package, home, packages, self._confined),
        )
        try:
            steps, types = remote_code(isolation, stored.description, package.hash, self._known())
        except (TypeError, ValueError, LookupError, RecursionError) as error:  # a process may tell anything
            raise BundleRefused([f"what its process tells of its steps makes no sense: {error}"]) from error
        return Version(package.hash, stored.manifest, steps, types, drafts, isolation=isolation)

    async def forget(self, hashes: Iterable[str], kept: Iterable[Package]) -> None:
        """Delete what is unpacked of these, and the packages that none of those that are kept requires."""
        for found in hashes:
            await asyncio.to_thread(shutil.rmtree, self._home(found), ignore_errors=True)
        places = {place for package in kept if (place := self._requirements.place(package)) is not None}
        await asyncio.to_thread(self._requirements.keep_only, places)

    async def close(self) -> None:
        """Have no more processes."""
        if self._owns_nursery:
            await self._nursery.close()

    # code

    async def _describe(self, package: Package) -> Description:
        home = await self._unpack(package)
        packages = await self._requirements.install(package, home)
        process = await self._start(package, home, packages)
        await process.stop()
        return process.description

    async def _start(self, package: Package, home: Path, packages: Path | None) -> BundleProcess:
        name = named(package.manifest, package.hash)
        setup = self._setup(package, home, packages, self._confined)
        try:
            return await BundleProcess.start(self._nursery, name, setup, self._patience)
        except NotConfined as error:
            if not self._unconfined:
                raise
            log.warning("flow.bundle_unconfined", bundle=name, error=str(error))
            self._confined = False
        setup = self._setup(package, home, packages, False)
        return await BundleProcess.start(self._nursery, name, setup, self._patience)

    def _setup(self, package: Package, home: Path, packages: Path | None, confined: bool) -> Setup:
        manifest = package.manifest
        confinement = Confinement(
            root="",
            visible=(*python_paths(), *([str(packages)] if packages else [])),
            user=user_of(package.hash),
            memory=manifest.rights.memory,
            network=manifest.rights.network,
        )
        return Setup(
            home=str(home),
            packages=str(packages) if packages else None,
            modules=manifest.steps,
            types=manifest.types,
            prefix=manifest.prefix,
            confinement=confinement if confined else None,
        )

    def _import(self, package: Package, namespace: Namespace, home: Path) -> BundleCode:
        manifest = package.manifest
        return import_code(
            namespace.load, manifest.steps, manifest.types, manifest.prefix, str(home), package.hash
        )

    def _known(self) -> Known:
        """The program's types by name: those that documents may name, and those of its steps."""
        found: dict[str, dict[str, Hint]] = defaultdict(dict)
        signatures = [hint for code in self._base.steps.values() for hint in _signature(code)]
        for hint in (*self._base.types.values(), *signatures):
            for key, kind in kinds_of(hint).items():
                found[kind.__name__][key] = kind
        return lambda name: found.get(name, {}).values()

    # files

    async def _unpack(self, package: Package) -> Path:
        return await asyncio.to_thread(package.unpack, self._home(package.hash))

    def _home(self, hash: str) -> Path:  # noqa: A002
        return self._cache.resolve() / "code" / hash


def _signature(code: Code) -> Iterable[Hint]:
    return (*code.parameters.values(), code.returns)
