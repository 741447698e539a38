"""Images that arrive: from a registry, an archive or another store, they become blobs of an OCI layout.

What a store does with them then is its own: one of a host unpacks their layers, one of a cluster pushes them.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from skep.model.errors import InvalidInput, Unsupported
from skep.model.ids import Digest
from skep.model.images import ImageInfo, RegistryCredentials
from skep.providers.local.commands import LineSink
from skep.providers.local.images.blobs import Blobs
from skep.providers.local.images.layers import remove_tree
from skep.providers.local.images.manifests import Manifest, checked_digest, describe, read_manifest
from skep.providers.local.images.shipping import write_blocks
from skep.providers.local.images.skopeo import Skopeo
from skep.providers.local.images.sources import Kind, detect, import_layout, saved_images


def silent(line: str) -> None:
    """Progress nobody asked for."""


@contextlib.contextmanager
def workplace(folder: Path) -> Iterator[Path]:
    """A new folder in this one, gone at the end."""
    place = Path(tempfile.mkdtemp(dir=folder))
    try:
        yield place
    finally:
        remove_tree(place)


async def described(blobs: Blobs, digest: Digest) -> tuple[Manifest, ImageInfo]:
    """Of an image all of whose blobs are there."""
    manifest = read_manifest(await asyncio.to_thread(blobs.document, digest))
    configuration = await asyncio.to_thread(blobs.document, checked_digest(manifest.config.digest))
    return manifest, describe(digest, manifest, configuration)


@dataclass(frozen=True)
class Arrivals:
    """Into `blobs`; `place` is always an empty folder for what is on its way."""

    blobs: Blobs
    skopeo: Skopeo
    untar: Callable[[Path, Path], Awaitable[None]]
    """Makes a folder of the layout that is in a tar."""
    root: Callable[[Path, LineSink], Awaitable[Digest]]
    """Makes an image of the root file system that is in a tar."""

    async def pulled(
        self, reference: str, credentials: RegistryCredentials | None, place: Path, progress: LineSink
    ) -> Digest:
        fetched = await self.skopeo.fetch(reference, credentials, place / "oci", progress)
        return await asyncio.to_thread(self.blobs.with_healthcheck, fetched.digest, fetched.configuration)

    async def loaded(self, source: Path, kind: Kind, place: Path, progress: LineSink) -> dict[str, Digest]:
        """By name, "" where it has none.  Raises InvalidInput: it is none, or damaged."""
        match kind:
            case Kind.OCI_FOLDER:
                return await asyncio.to_thread(import_layout, source, self.blobs)
            case Kind.OCI_TAR:
                await self.untar(source, place / "layout")
                return await asyncio.to_thread(import_layout, place / "layout", self.blobs)
            case Kind.DOCKER_TAR:
                return await self._saved(source, place, progress)
            case Kind.ROOT_TAR:
                return {"": await self.root(source, progress)}

    async def received(self, digest: Digest, layout: AsyncIterator[bytes], place: Path) -> None:
        """Raises InvalidInput: it is another image than it was said to be, or damaged."""
        tar = place / "layout.tar"
        await write_blocks(layout, tar)
        found = await self.loaded(tar, Kind.OCI_TAR, place, silent)
        if digest not in found.values():
            raise InvalidInput(f"What arrived is not the image {digest}.")

    async def _saved(self, source: Path, place: Path, progress: LineSink) -> dict[str, Digest]:
        if ":" in str(source):
            raise Unsupported("The path of a docker-archive must not contain ':'.")
        found: dict[str, Digest] = {}
        for number, saved in enumerate(await asyncio.to_thread(saved_images, source)):
            target = place / str(number)
            digest = await self.skopeo.convert(f"docker-archive:{source}:@{number}", target, progress)
            digest = await asyncio.to_thread(self.blobs.with_healthcheck, digest, saved.configuration)
            found |= dict.fromkeys(saved.names or ("",), digest)
        return found


async def kind_of(source: Path, progress: LineSink) -> Kind:
    """What it is, and says so.  Raises InvalidInput: nothing that can become an image."""
    kind = await asyncio.to_thread(detect, source)
    progress(f"{source.name}: {kind.value}")
    return kind
