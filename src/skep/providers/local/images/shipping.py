"""Images on their way between stores: an OCI layout in a tar, written and read block by block."""

import asyncio
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from skep.model.ids import Digest
from skep.providers.local.images.blobs import Blobs, hex_of
from skep.providers.local.images.manifests import Index, checked_digest, read_manifest

_BLOCK = 1024 * 1024
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


async def layout_tar(blobs: Blobs, digest: Digest) -> AsyncIterator[bytes]:
    """The image and nothing else, its manifest as it is, so that it keeps its digest."""
    manifest = read_manifest(await asyncio.to_thread(blobs.document, digest))
    index = Index(manifests=(blobs.descriptor(digest, manifest.media_type),))
    yield _member("oci-layout", _LAYOUT)
    yield _member("index.json", msgspec.json.encode(index))
    parts = [digest, *(checked_digest(part.digest) for part in (manifest.config, *manifest.layers))]
    for part in dict.fromkeys(parts):
        async for block in _file(f"blobs/sha256/{hex_of(part)}", blobs.path(part)):
            yield block
    yield bytes(2 * tarfile.BLOCKSIZE)


async def write_blocks(blocks: AsyncIterator[bytes], path: Path) -> None:
    with path.open("xb") as file:
        async for block in blocks:
            await asyncio.to_thread(file.write, block)


def _member(name: str, content: bytes) -> bytes:
    return _header(name, len(content)) + content + _padding(len(content))


async def _file(name: str, path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        size = path.stat().st_size
        yield _header(name, size)
        while block := await asyncio.to_thread(file.read, _BLOCK):
            yield block
        yield _padding(size)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)
