"""Images: pulled, built, imported, made, removed.

A tenant sees its own references and those the operator shares.  Blobs and layers are shared by digest
underneath; who knows a digest gains nothing by it, since only references can be asked for.
"""

import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import msgspec

from skep.control.callers import Caller
from skep.control.clock import Now, rfc3339
from skep.control.host_directory import HostDirectory
from skep.control.image_sources import ImageSources
from skep.control.plans import facts
from skep.control.settings import Settings
from skep.flow import Database, FlowEngine
from skep.model.errors import Conflict, InvalidInput, NotFound, SkepError, Unavailable
from skep.model.ids import Bytes, Digest, HostName, new_id
from skep.model.images import BuildSpec, RegistryCredentials
from skep.model.references import normalize
from skep.model.views.base import Accepted
from skep.model.views.images import ImageView, PruneView
from skep.store import apps, images
from skep.store.images import ImageRow


class Images:
    def __init__(
        self,
        database: Database,
        flows: FlowEngine,
        hosts: HostDirectory,
        settings: Settings,
        now: Now,
    ) -> None:
        self._database = database
        self._flows = flows
        self._hosts = hosts
        self._settings = settings
        self._now = now
        self._sources = ImageSources(hosts)

    async def pull(
        self,
        caller: Caller,
        reference: str,
        credentials: RegistryCredentials | None = None,
        *,
        shared: bool = False,
    ) -> Accepted:
        """Fetch from a registry.  Credentials wait in a file only root can read, until the run has ended."""
        owner = self._owner(caller, shared)
        name = normalize(reference)
        upload = ""
        if credentials is not None:
            path = self.upload_path(caller)
            _write_private(path, msgspec.json.encode(credentials))
            upload = path.name
        with self._dropped_on_error(upload):
            async with self._on_host(upload) as host:
                values = {"host": host, "tenant": owner, "reference": name, "upload": upload}
                return await self._run(caller, "image.pull", f"pull {name}", values)

    async def load(
        self, caller: Caller, archive: Path, reference: str | None, *, shared: bool = False
    ) -> Accepted:
        """Import an uploaded archive, which becomes the run's."""
        with self._dropped_on_error(archive.name):
            owner = self._owner(caller, shared)
            name = normalize(reference) if reference else ""
            title = f"import {name or 'an archive'}"
            async with self._on_host(archive.name) as host:
                values = {"host": host, "tenant": owner, "reference": name, "upload": archive.name}
                return await self._run(caller, "image.load", title, values)

    async def build(self, caller: Caller, context: Path, build: BuildSpec, reference: str) -> Accepted:
        """Build from an uploaded context, which becomes the run's.

        Base images are resolved among the tenant's own and the shared ones, never in another tenant's.
        """
        with self._dropped_on_error(context.name):
            owner = self._owner(caller, shared=False)
            name = normalize(reference)
            bases = await self._bases(caller)
            values = {
                "tenant": owner,
                "reference": name,
                "upload": context.name,
                "build": msgspec.structs.replace(build, bases=bases, scope=caller.tenant),
            }
            async with self._on_host(context.name, builds=True) as host:
                return await self._run(caller, "image.build", f"build {name}", values | {"host": host})

    async def bootstrap(self, caller: Caller, suite: str, reference: str, *, shared: bool = True) -> Accepted:
        """Make a Debian base image on the host."""
        caller.must_operate()
        if not suite.isalnum():
            raise InvalidInput(f"{suite[:40]!r} is not the name of a Debian release; try 'bookworm'.")
        name = normalize(reference)
        owner = self._owner(caller, shared)
        async with self._on_host(builds=True) as host:
            values = {"host": host, "tenant": owner, "reference": name, "suite": suite}
            return await self._run(caller, "image.bootstrap", f"make {name}", values)

    async def save(self, caller: Caller, reference: str) -> AsyncIterator[bytes]:
        """An OCI layout in a tar, with this image alone, to be taken elsewhere."""
        caller.must_change()
        row = await self._named(caller, reference)
        return await self._sources.export(Digest(row.digest))

    async def remove(self, caller: Caller, reference: str) -> None:
        """Forget a reference; `prune` frees the space once nobody uses the image."""
        caller.must_change()
        row = await self._named(caller, reference)
        if row.tenant_id == images.SHARED:
            caller.must_operate()
        await self._database.write(lambda connection: images.remove(connection, row.tenant_id, row.reference))

    async def prune(self, caller: Caller) -> PruneView:
        """Delete what no reference and no release needs: images, and contents of configs and secrets.

        Raises:
            Conflict: images are being fetched, and could be taken for garbage before they are recorded.
        """
        caller.must_operate()
        active = await self._flows.list(active=True, limit=1000)
        if active:
            raise Conflict(
                f"Run {active[0].id} ({active[0].title}) may be fetching images: try when it has ended."
            )
        async with self._database.read() as connection:
            keep = {Digest(row.digest) for row in await images.visible(connection, None)}
            keep |= {Digest(digest) for digest in await images.referenced_by_releases(connection)}
        await self._database.write(apps.forget_files)
        freed = 0
        for name in self._hosts.names():
            with suppress(Unavailable):  # a silent host is pruned another time
                there = await self._hosts.answering(name)
                freed += await there.images.prune(keep)
        return PruneView(freed=Bytes(freed))

    def upload_path(self, caller: Caller) -> Path:
        """A fresh path in the spool.  Raises Forbidden: nothing is taken from the caller."""
        caller.must_change()
        return self._settings.spool / new_id()

    async def list(self, caller: Caller) -> list[ImageView]:
        async with self._database.read() as connection:
            rows = await images.visible(connection, caller.tenant)
            used = await images.referenced_by_releases(connection)
        return [
            ImageView(
                id=row.id,
                reference=row.reference,
                digest=row.digest,
                size=row.info.size,
                created=rfc3339(row.created),
                tenant=caller.tenant_name if row.tenant_id else None,
                in_use=row.digest in used,
            )
            for row in rows
        ]

    async def _named(self, caller: Caller, reference: str) -> ImageRow:
        """The tenant's own, before one that is shared.  Raises NotFound: there is neither."""
        name = normalize(reference)
        async with self._database.read() as connection:
            rows = [row for row in await images.visible(connection, caller.tenant) if row.reference == name]
        if not rows:
            raise NotFound(f"There is no image {name!r}; see 'skep image ls'.")
        return max(rows, key=lambda row: row.tenant_id)

    async def _bases(self, caller: Caller) -> dict[str, Digest]:
        async with self._database.read() as connection:
            rows = await images.visible(connection, caller.tenant)
        return {row.reference: row.digest for row in sorted(rows, key=lambda row: row.tenant_id)}

    @contextmanager
    def _dropped_on_error(self, upload: str) -> Iterator[None]:
        """An upload that no run takes is thrown away."""
        try:
            yield
        except BaseException:
            if upload:
                (self._settings.spool / upload).unlink(missing_ok=True)
            raise

    @asynccontextmanager
    async def _on_host(self, upload: str = "", *, builds: bool = False) -> AsyncIterator[HostName]:
        """The host where the run will be, with the upload on it."""
        async with self._database.read() as connection:
            host = await facts.build_host(connection, builds=builds)
        async with self._taken(upload, host):
            yield host

    @asynccontextmanager
    async def _taken(self, upload: str, host: HostName) -> AsyncIterator[None]:
        if not upload:
            yield
            return
        there = await self._hosts.answering(host)
        spool = there.spool
        await spool.take(self._settings.spool / upload)
        try:
            yield
        except BaseException:
            with suppress(SkepError):
                await spool.discard(upload)
            raise

    def _owner(self, caller: Caller, shared: bool) -> str:
        caller.must_change()
        if shared:
            caller.must_operate()
        return images.SHARED if shared else caller.tenant

    async def _run(self, caller: Caller, flow: str, title: str, values: Mapping[str, object]) -> Accepted:
        run = await self._flows.start(flow, values, tenant=caller.tenant, title=title)
        return Accepted(run=run)


def _write_private(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
