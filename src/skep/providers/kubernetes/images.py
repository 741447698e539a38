"""The images of a zone on a cluster: they are in the registry that the zone names, and nowhere else.

Satisfies `ImageStore` of control.  What arrives is verified, pushed by digest, and forgotten; nodes pull it
from there by digest.  Another process that leads the cluster finds the same images.
"""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import msgspec
import structlog

from skep.model.errors import InvalidInput, NotFound, Unsupported
from skep.model.ids import Bytes, Digest
from skep.model.images import BuildSpec, ImageInfo, RegistryCredentials
from skep.providers.local.commands import LineSink
from skep.providers.local.images.archives import diff_id_of, layout_of_tar
from skep.providers.local.images.blobs import Blobs
from skep.providers.local.images.builds import needed_bases
from skep.providers.local.images.layers import remove_tree
from skep.providers.local.images.manifests import Index, checked_digest, describe, digest_of, read_manifest
from skep.providers.local.images.repository import Repository
from skep.providers.local.images.shipping import layout_tar, write_blocks
from skep.providers.local.images.skopeo import Skopeo
from skep.providers.local.images.sources import Kind, detect, import_layout, saved_images
from skep.providers.local.images.store import load_context

log = structlog.get_logger(__name__)

KNOWN_FOR = 300.0
"""Seconds for which an image that was seen in the registry is believed to be there."""
_NO_BUILDS = (
    "Images are built on skep's own hosts, and this zone is a cluster: add a host with 'skep host add', or "
    "build elsewhere and pull or import the image."
)


def _silent(line: str) -> None:
    """Progress nobody asked for."""


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
        remove_tree(scratch)
        scratch.mkdir(parents=True, mode=0o700)

    def reference(self, digest: Digest) -> str:
        """What pods name as their image."""
        return self._repository.reference(digest)

    async def pull(
        self, reference: str, credentials: RegistryCredentials | None = None, progress: LineSink = _silent
    ) -> ImageInfo:
        with self._workplace() as place:
            blobs = _blobs(place)
            skopeo = Skopeo(blobs.folder.parent, self._insecure)
            fetched = await skopeo.fetch(reference, credentials, place / "oci", progress)
            digest = await asyncio.to_thread(blobs.with_healthcheck, fetched.digest, fetched.configuration)
            return await self._push(blobs, digest, progress)

    async def load(self, source: Path, progress: LineSink = _silent) -> dict[str, ImageInfo]:
        kind = await asyncio.to_thread(detect, source)
        progress(f"{source.name}: {kind.value}")
        with self._workplace() as place:
            blobs = _blobs(place)
            found = await self._import(kind, source, place, blobs, progress)
            return {name: await self._push(blobs, digest, progress) for name, digest in found.items()}

    @contextlib.asynccontextmanager
    async def context(self, archive: Path) -> AsyncIterator[Path]:
        with self._workplace() as place:
            await load_context(archive, place)
            yield place

    async def bases(self, context: Path, build: BuildSpec) -> list[str]:
        return await asyncio.to_thread(needed_bases, context, build)

    async def build(self, context: Path, build: BuildSpec, progress: LineSink = _silent) -> ImageInfo:
        """Raises Unsupported: clusters build nothing."""
        for digest in build.bases.values():
            await self.info(digest)
        raise Unsupported(_NO_BUILDS)

    async def bootstrap(self, suite: str, progress: LineSink = _silent) -> ImageInfo:
        """Raises Unsupported: clusters build nothing."""
        raise Unsupported(_NO_BUILDS)

    async def unpack(self, digest: Digest) -> tuple[Path, ...]:
        """Nodes unpack: here it is in their reach.  The layers, as the registry has them."""
        info = await self.info(digest)
        return tuple(Path(self._repository.place, layer) for layer in info.layers)

    async def info(self, digest: Digest) -> ImageInfo:
        until, known = self._seen.get(digest, (0.0, None))
        if known is not None and self._monotonic() < until:
            return known
        try:
            manifest = await self._repository.manifest(digest)
        except NotFound as error:
            raise NotFound(f"The registry of this zone does not have the image {digest}.") from error
        configuration = await self._repository.configuration(digest)
        if digest_of(manifest) != digest:
            raise NotFound(f"The registry has another image under {digest}.")
        return self._remember(describe(digest, read_manifest(manifest), configuration))

    async def export(self, digest: Digest) -> AsyncIterator[bytes]:
        await self.info(digest)
        with self._workplace() as place:
            blobs = _blobs(place)
            await self._repository.fetch(digest, place / "oci", blobs.folder.parent, _silent)
            async for block in layout_tar(blobs, digest):
                yield block

    async def receive(self, digest: Digest, layout: AsyncIterator[bytes]) -> ImageInfo:
        with self._workplace() as place:
            tar = place / "layout.tar"
            await write_blocks(layout, tar)
            blobs = _blobs(place)
            found = await self._import(Kind.OCI_TAR, tar, place, blobs, _silent)
            if digest not in found.values():
                raise InvalidInput(f"What arrived is not the image {digest}.")
            return await self._push(blobs, digest, _silent)

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
        manifest = read_manifest(await asyncio.to_thread(blobs.document, digest))
        configuration = await asyncio.to_thread(blobs.document, checked_digest(manifest.config.digest))
        info = describe(digest, manifest, configuration)
        only = Index(manifests=(blobs.descriptor(digest, manifest.media_type),))
        (blobs.root / "index.json").write_bytes(msgspec.json.encode(only))
        progress(f"pushing to {self._repository.place}")
        await self._repository.push(blobs.root, digest, progress)
        return self._remember(info)

    def _remember(self, info: ImageInfo) -> ImageInfo:
        self._seen[info.digest] = (self._monotonic() + KNOWN_FOR, info)
        return info

    async def _import(
        self, kind: Kind, source: Path, place: Path, blobs: Blobs, progress: LineSink
    ) -> dict[str, Digest]:
        match kind:
            case Kind.OCI_FOLDER:
                return await asyncio.to_thread(import_layout, source, blobs)
            case Kind.OCI_TAR:
                folder = await asyncio.to_thread(layout_of_tar, source, place / "layout")
                return await asyncio.to_thread(import_layout, folder, blobs)
            case Kind.DOCKER_TAR:
                return await self._import_docker(source, place, blobs, progress)
            case Kind.ROOT_TAR:
                layer = await asyncio.to_thread(diff_id_of, source)
                blob = await asyncio.to_thread(blobs.put_file, source)
                return {"": await asyncio.to_thread(blobs.put_image, blob, layer, ("/bin/sh",))}

    async def _import_docker(
        self, source: Path, place: Path, blobs: Blobs, progress: LineSink
    ) -> dict[str, Digest]:
        skopeo = Skopeo(blobs.folder.parent, self._insecure)
        found: dict[str, Digest] = {}
        for number, saved in enumerate(await asyncio.to_thread(saved_images, source)):
            archive = f"docker-archive:{source}:@{number}"
            digest = await skopeo.convert(archive, place / str(number), progress)
            digest = await asyncio.to_thread(blobs.with_healthcheck, digest, saved.configuration)
            found |= dict.fromkeys(saved.names or ("",), digest)
        return found

    @contextlib.contextmanager
    def _workplace(self) -> Iterator[Path]:
        place = Path(tempfile.mkdtemp(dir=self._scratch))
        try:
            yield place
        finally:
            remove_tree(place)


def _blobs(place: Path) -> Blobs:
    scratch = place / "scratch"
    scratch.mkdir()
    blobs = Blobs(place / "store", scratch)
    blobs.prepare()
    return blobs
