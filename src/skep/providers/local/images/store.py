"""The images of one host.

Satisfies `ImageStore` of control.  An image is its manifest's digest; its blobs lie in an OCI layout, its
layers unpacked beside it, and both are shared by all images.  What is used by whom is computed from the
images that are there, never counted, so it cannot go wrong.
"""

import asyncio
import contextlib
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import structlog

from skep.model.errors import HostFailure, InvalidInput, NotFound
from skep.model.ids import Bytes, Digest
from skep.model.images import BuildSpec, ImageInfo, RegistryCredentials
from skep.providers.local.commands import LineSink
from skep.providers.local.images.arrivals import Arrivals, described, kind_of, silent, workplace
from skep.providers.local.images.blobs import Blobs, hex_of
from skep.providers.local.images.build_groups import remove_build_group
from skep.providers.local.images.build_network import BuildNetwork
from skep.providers.local.images.builds import BuildLimits, Builds, needed_bases
from skep.providers.local.images.debootstrap import bootstrap_tar
from skep.providers.local.images.layers import Layers, UnpackLimits, remove_tree, unpack_archive
from skep.providers.local.images.manifests import Descriptor, checked_digest, read_manifest
from skep.providers.local.images.sharing import SharedLock
from skep.providers.local.images.shipping import layout_tar
from skep.providers.local.images.skopeo import Skopeo

log = structlog.get_logger()


class OciImages:
    """The store at ROOT.  Use as an asynchronous context manager.

    `scratch` is for large temporary files of builds and imports; what will be renamed into the store is
    made below ROOT itself.  Without a `build_network` builds have no network at all.  `insecure` names
    registries (`host:port`) that may speak plain HTTP.
    """

    def __init__(
        self,
        *,
        root: Path,
        scratch: Path,
        build_network: BuildNetwork | None,
        runtime: str,
        instance: str = "skep",
        insecure: tuple[str, ...] = (),
        unpack_limits: UnpackLimits | None = None,
        build_limits: BuildLimits | None = None,
    ) -> None:
        self._root = root
        self._temporary = root / "tmp"
        self._scratch = scratch
        self._images = root / "images"
        self._unpack_limits = unpack_limits or UnpackLimits()
        self._blobs = Blobs(root, self._temporary)
        self._layers = Layers(root, self._temporary, self._unpack_limits)
        self._arrivals = Arrivals(
            self._blobs, Skopeo(self._blobs.folder.parent, insecure), self._untar, self._import_root
        )
        self._builds = Builds(
            root=root / "build",
            scratch=scratch,
            blobs=self._blobs,
            network=build_network,
            runtime=runtime,
            instance=instance,
            limits=build_limits or BuildLimits(),
        )
        self._known: dict[Digest, ImageInfo] = {}
        self._unpacked: dict[Digest, tuple[Path, ...]] = {}
        self._born: dict[Digest, float] = {}
        self._transfers = SharedLock()
        self._pulls: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """By repository: pulls of different ones go on at the same time."""

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._prepare)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._layers.close()

    def _prepare(self) -> None:
        """Make the folders; sweep what a crash left half done."""
        for folder in (self._root, self._images, self._scratch):
            folder.mkdir(parents=True, exist_ok=True)
        remove_tree(self._temporary)
        self._temporary.mkdir(mode=0o700)
        self._blobs.prepare()
        self._layers.prepare()
        self._builds.prepare()
        for path in self._images.glob("*.json"):
            self._remember(path)

    def _remember(self, path: Path) -> None:
        try:
            info = msgspec.json.decode(path.read_bytes(), type=ImageInfo)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            log.warning("image.record_damaged", path=str(path))
            path.unlink()
            return
        self._known[info.digest] = info

    async def pull(
        self, reference: str, credentials: RegistryCredentials | None = None, progress: LineSink = silent
    ) -> ImageInfo:
        # skopeo writes a manifest in place: who pulls the same one at that moment would read half of it.
        async with self._pulls[reference.partition("@")[0].rpartition(":")[0]], self._transfers.shared():
            with self._workplace() as place:
                digest = await self._arrivals.pulled(reference, credentials, place, progress)
            return await self._register(digest, progress)

    async def load(self, source: Path, progress: LineSink = silent) -> dict[str, ImageInfo]:
        kind = await kind_of(source, progress)
        async with self._transfers.shared():
            with self._workplace() as place:
                found = await self._arrivals.loaded(source, kind, place, progress)
            return {name: await self._register(digest, progress) for name, digest in found.items()}

    @contextlib.asynccontextmanager
    async def context(self, archive: Path) -> AsyncIterator[Path]:
        with self._workplace() as place:
            await load_context(archive, place, self._unpack_limits)
            yield place

    async def bases(self, context: Path, build: BuildSpec) -> list[str]:
        return await asyncio.to_thread(needed_bases, context, build)

    async def build(self, context: Path, build: BuildSpec, progress: LineSink = silent) -> ImageInfo:
        for digest in build.bases.values():
            await self.info(digest)
        built = await self._builds.build(context, build, progress)
        async with self._transfers.shared():
            with self._workplace() as place:
                stored = await asyncio.to_thread(self._stored_layers)
                digest = await self._builds.export(built, stored, place)
            return await self._register(digest, progress)

    async def bootstrap(self, suite: str, progress: LineSink = silent) -> ImageInfo:
        with self._workplace() as place:
            tar = await bootstrap_tar(suite, self._scratch, self._root / "bootstrap", place, progress)
            async with self._transfers.shared():
                digest = await self._import_root(tar, progress, ("bash",))
                return await self._register(digest, progress)

    async def unpack(self, digest: Digest) -> tuple[Path, ...]:
        if (paths := self._unpacked.get(digest)) is not None:
            return paths
        info = await self.info(digest)
        async with self._transfers.shared():
            manifest = read_manifest(await asyncio.to_thread(self._blobs.document, digest))
            blobs = [checked_digest(layer.digest) for layer in manifest.layers]
            try:
                self._unpacked[digest] = await self._unpack_all(blobs, info)
            except InvalidInput as error:
                raise HostFailure(f"Image {digest} is damaged here; get it again. {error.message}") from error
        return self._unpacked[digest]

    async def info(self, digest: Digest) -> ImageInfo:
        try:
            return self._known[digest]
        except KeyError as error:
            raise NotFound(f"This host does not have the image {digest}.") from error

    async def export(self, digest: Digest) -> AsyncIterator[bytes]:
        await self.info(digest)
        async with self._transfers.shared():
            async for block in layout_tar(self._blobs, digest):
                yield block

    async def receive(self, digest: Digest, layout: AsyncIterator[bytes]) -> ImageInfo:
        async with self._transfers.shared():
            with self._workplace() as place:
                await self._arrivals.received(digest, layout, place)
            return await self._register(digest, silent)

    async def prune(self, keep: set[Digest]) -> Bytes:
        """As control wants it; images that arrive while it waits for transfers to end stay."""
        doomed = set(self._known) - keep
        unwanted = {digest: self._born.get(digest) for digest in doomed}
        async with self._transfers.alone():
            for digest, born in unwanted.items():
                if self._born.get(digest) == born:
                    self._forget(digest)
            freed = await asyncio.to_thread(self._sweep)
        return Bytes(freed + await self._builds.prune())

    def _forget(self, digest: Digest) -> None:
        (self._images / f"{hex_of(digest)}.json").unlink(missing_ok=True)
        self._known.pop(digest, None)
        self._unpacked.pop(digest, None)
        self._born.pop(digest, None)
        self._blobs.delete(digest)

    def _sweep(self) -> Bytes:
        """Delete blobs and layers that no image has."""
        used = {digest for image in self._known for digest in self._parts(image)}
        layers = {layer for info in self._known.values() for layer in info.layers}
        freed = 0
        for digest, size in self._blobs.all().items():
            if digest not in used:
                self._blobs.delete(digest)
                freed += size
        return Bytes(freed + sum(self._layers.delete(layer) for layer in self._layers.all() - layers))

    def _parts(self, image: Digest) -> set[Digest]:
        manifest = read_manifest(self._blobs.document(image))
        return {image, *(checked_digest(part.digest) for part in (manifest.config, *manifest.layers))}

    async def _untar(self, tar: Path, into: Path) -> None:
        into.mkdir()
        await unpack_archive(tar, into, "files", self._unpack_limits)

    async def _import_root(
        self, source: Path, progress: LineSink, cmd: tuple[str, ...] = ("/bin/sh",)
    ) -> Digest:
        progress("unpacking the root file system")
        before = set(await asyncio.to_thread(self._blobs.all))
        blob = await asyncio.to_thread(self._blobs.put_file, source)
        try:
            result = await self._layers.discover(self._blobs.path(blob))
            if not result.entries:
                raise InvalidInput(f"{source.name} holds no root file system: it is empty.")
        except InvalidInput:
            if blob not in before:
                self._blobs.delete(blob)
            raise
        return await asyncio.to_thread(self._blobs.put_image, blob, Digest(result.diff_id), cmd)

    async def _register(self, digest: Digest, progress: LineSink) -> ImageInfo:
        """Unpack and verify the image whose blobs are here; then it exists."""
        manifest, info = await described(self._blobs, digest)
        blobs = [checked_digest(layer.digest) for layer in manifest.layers]
        progress(f"unpacking {len(blobs)} layers")
        self._unpacked[digest] = await self._unpack_all(blobs, info)
        await asyncio.to_thread(self._record, info)
        return info

    async def _unpack_all(self, blobs: list[Digest], info: ImageInfo) -> tuple[Path, ...]:
        pairs = zip(blobs, info.layers, strict=True)
        jobs = [self._layers.ensure(self._blobs.path(blob), blob, layer) for blob, layer in pairs]
        outcomes = await asyncio.gather(*jobs, return_exceptions=True)
        for blob, outcome in zip(blobs, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                await asyncio.to_thread(self._blobs.discard_damaged, blob)
                raise outcome
        return tuple(path for path in outcomes if isinstance(path, Path))

    def _record(self, info: ImageInfo) -> None:
        with tempfile.NamedTemporaryFile(dir=self._temporary, delete=False) as file:
            file.write(msgspec.json.encode(info))
        Path(file.name).rename(self._images / f"{hex_of(info.digest)}.json")
        self._known[info.digest] = info
        self._born[info.digest] = time.monotonic()

    def _stored_layers(self) -> dict[Digest, Descriptor]:
        """How each layer is stored, by diff id, for images that share layers with one just built."""
        found: dict[Digest, Descriptor] = {}
        for digest, info in self._known.items():
            manifest = read_manifest(self._blobs.document(digest))
            found |= dict(zip(info.layers, manifest.layers, strict=True))
        return found

    def _workplace(self) -> AbstractContextManager[Path]:
        """On the store's own file system."""
        return workplace(self._temporary)


async def load_context(tar: Path, into: Path, limits: UnpackLimits | None = None) -> None:
    """Unpack an uploaded build context into the existing empty folder `into`; nothing leaves it.

    Raises:
        InvalidInput: the tar is broken, hostile or too large.
    """
    await unpack_archive(tar, into, "files", limits or UnpackLimits())


async def teardown(root: Path, instance: str, *, purge: bool = False) -> None:
    """Remove network and cgroup of builds; with `purge` the store too.  Absent is success."""
    await BuildNetwork(instance=instance).teardown()
    await asyncio.to_thread(remove_build_group, instance)
    if purge:
        await asyncio.to_thread(remove_tree, root)
