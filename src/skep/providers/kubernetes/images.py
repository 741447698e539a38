"""The images of a zone on a cluster: they are in the registry that the zone names, and nowhere else.

Satisfies `ImageStore` of control.  What arrives is verified, pushed by digest, and forgotten; nodes pull it
from there by digest.  Another process that leads the cluster finds the same images.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import msgspec
import structlog

from skep.model.errors import NotFound, Unavailable, Unsupported
from skep.model.ids import Bytes, Digest
from skep.model.images import BuildSpec, ImageInfo, RegistryCredentials
from skep.providers.local.commands import LineSink
from skep.providers.local.images.archives import diff_id_of, layout_of_tar
from skep.providers.local.images.arrivals import Arrivals, described, kind_of, silent, workplace
from skep.providers.local.images.blobs import Blobs
from skep.providers.local.images.builds import needed_bases
from skep.providers.local.images.layers import remove_tree
from skep.providers.local.images.manifests import Index, describe, digest_of, read_manifest
from skep.providers.local.images.repository import Repository
from skep.providers.local.images.shipping import layout_tar
from skep.providers.local.images.skopeo import Skopeo
from skep.providers.local.images.store import load_context

log = structlog.get_logger(__name__)

KNOWN_FOR = 300.0
"""Seconds for which an image that was seen in the registry is believed to be there."""
_ANSWERS = 60.0
"""Seconds within which a registry tells of an image."""
_NO_BUILDS = (
    "Images are built on skep's own hosts, and this zone is a cluster: add a host with 'skep host add', or "
    "build elsewhere and pull or import the image."
)


class ClusterImages:
    """`scratch`: a folder for what is on its way; what a former process left there is swept."""

    def __init__(
        self,
        repository: Repository,
        scratch: Path,
        insecure: tuple[str, ...] = (),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._repository = repository
        self._scratch = scratch
        self._insecure = insecure
        self._monotonic = monotonic
        self._seen: dict[Digest, tuple[float, ImageInfo]] = {}
        self._asking: dict[Digest, asyncio.Task[ImageInfo]] = {}
        remove_tree(scratch)
        scratch.mkdir(parents=True, mode=0o700)

    def reference(self, digest: Digest) -> str:
        """What pods name as their image."""
        return self._repository.reference(digest)

    async def pull(
        self, reference: str, credentials: RegistryCredentials | None = None, progress: LineSink = silent
    ) -> ImageInfo:
        with self._arriving() as (place, arrivals):
            digest = await arrivals.pulled(reference, credentials, place, progress)
            return await self._push(arrivals.blobs, digest, progress)

    async def load(self, source: Path, progress: LineSink = silent) -> dict[str, ImageInfo]:
        kind = await kind_of(source, progress)
        with self._arriving() as (place, arrivals):
            found = await arrivals.loaded(source, kind, place, progress)
            return {name: await self._push(arrivals.blobs, one, progress) for name, one in found.items()}

    @contextlib.asynccontextmanager
    async def context(self, archive: Path) -> AsyncIterator[Path]:
        with workplace(self._scratch) as place:
            await load_context(archive, place)
            yield place

    async def bases(self, context: Path, build: BuildSpec) -> list[str]:
        return await asyncio.to_thread(needed_bases, context, build)

    async def build(self, context: Path, build: BuildSpec, progress: LineSink = silent) -> ImageInfo:
        """Raises Unsupported: clusters build nothing."""
        for digest in build.bases.values():
            await self.info(digest)
        raise Unsupported(_NO_BUILDS)

    async def bootstrap(self, suite: str, progress: LineSink = silent) -> ImageInfo:
        """Raises Unsupported: clusters build nothing."""
        raise Unsupported(_NO_BUILDS)

    async def unpack(self, digest: Digest) -> tuple[Path, ...]:
        """Nodes unpack: here it is in their reach.  The layers, as the registry has them."""
        info = await self.info(digest)
        return tuple(Path(self._repository.place, layer) for layer in info.layers)

    async def info(self, digest: Digest) -> ImageInfo:
        """Replicas of a service ask at the same time: the registry is asked once, and answers all of them.

        Raises:
            NotFound: it does not have it.  Unavailable: it does not answer in time.
        """
        until, known = self._seen.get(digest, (0.0, None))
        if known is not None and self._monotonic() < until:
            return known
        if digest not in self._asking:
            asking = self._asking[digest] = asyncio.create_task(self._ask(digest, known))
            asking.add_done_callback(lambda _: self._asking.pop(digest))
        return await asyncio.shield(self._asking[digest])

    async def _ask(self, digest: Digest, known: ImageInfo | None) -> ImageInfo:
        """What was `known` of it describes it for ever; whether the registry still has it is asked."""
        try:
            async with asyncio.timeout(_ANSWERS):
                return await self._inspect(digest, known)
        except TimeoutError as error:
            where = self._repository.registry
            raise Unavailable(f"The registry {where} does not answer within {_ANSWERS:.0f} s.") from error

    async def _inspect(self, digest: Digest, known: ImageInfo | None) -> ImageInfo:
        try:
            manifest = await self._repository.manifest(digest)
        except NotFound as error:
            raise NotFound(f"The registry of this zone does not have the image {digest}.") from error
        if digest_of(manifest) != digest:
            raise NotFound(f"The registry has another image under {digest}.")
        if known is None:
            configuration = await self._repository.configuration(digest)
            known = describe(digest, read_manifest(manifest), configuration)
        return self._remember(known)

    async def export(self, digest: Digest) -> AsyncIterator[bytes]:
        await self.info(digest)
        with self._arriving() as (place, arrivals):
            blobs = arrivals.blobs
            await self._repository.fetch(digest, place / "oci", blobs.folder.parent, silent)
            async for block in layout_tar(blobs, digest):
                yield block

    async def receive(self, digest: Digest, layout: AsyncIterator[bytes]) -> ImageInfo:
        with self._arriving() as (place, arrivals):
            await arrivals.received(digest, layout, place)
            return await self._push(arrivals.blobs, digest, silent)

    async def prune(self, keep: set[Digest]) -> Bytes:
        """A registry that deletes nothing keeps all.  Layers go when it collects its own garbage."""
        freed = 0
        for digest in await self._repository.images():
            if digest not in keep:
                try:
                    freed += await self._forget(digest)
                except Unsupported as error:
                    log.warning("images.kept", registry=self._repository.registry, reason=error.message)
                    break
        return Bytes(freed)

    async def _forget(self, digest: Digest) -> Bytes:
        try:
            size = (await self.info(digest)).size
        except NotFound:
            return Bytes(0)
        await self._repository.delete(digest)
        self._seen.pop(digest, None)
        return size

    async def _push(self, blobs: Blobs, digest: Digest, progress: LineSink) -> ImageInfo:
        """Of an OCI layout with this image alone, all of whose blobs were verified."""
        manifest, info = await described(blobs, digest)
        only = Index(manifests=(blobs.descriptor(digest, manifest.media_type),))
        (blobs.root / "index.json").write_bytes(msgspec.json.encode(only))
        progress(f"pushing to {self._repository.place}")
        await self._repository.push(blobs.root, digest, progress)
        return self._remember(info)

    def _remember(self, info: ImageInfo) -> ImageInfo:
        self._seen[info.digest] = (self._monotonic() + KNOWN_FOR, info)
        return info

    @contextlib.contextmanager
    def _arriving(self) -> Iterator[tuple[Path, Arrivals]]:
        """A store that is gone at the end, and a folder for what comes into it."""
        with workplace(self._scratch) as place:
            (place / "scratch").mkdir()
            blobs = Blobs(place / "store", place / "scratch")
            blobs.prepare()
            yield place, _arrivals(blobs, self._insecure)


def _arrivals(blobs: Blobs, insecure: tuple[str, ...]) -> Arrivals:
    """Archives are read and not unpacked: nothing of them is to run on this machine."""

    async def untar(tar: Path, into: Path) -> None:
        await asyncio.to_thread(layout_of_tar, tar, into)

    async def root(tar: Path, progress: LineSink) -> Digest:
        layer = await asyncio.to_thread(diff_id_of, tar)
        blob = await asyncio.to_thread(blobs.put_file, tar)
        return await asyncio.to_thread(blobs.put_image, blob, layer, ("/bin/sh",))

    return Arrivals(blobs, Skopeo(blobs.folder.parent, insecure), untar, root)
