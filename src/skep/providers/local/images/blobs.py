"""Blobs by digest: an OCI layout (image-spec, image-layout.md) shared by all images of the host.

Whatever stands under a digest here was verified before it got its name; names appear only by rename.
"""

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path
from typing import IO

import msgspec

from skep.model.errors import InvalidInput, NotFound
from skep.model.ids import Bytes, Digest
from skep.providers.local.images.manifests import (
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    as_docker,
    checked_digest,
    digest_of,
    plain_configuration,
    read_manifest,
    with_healthcheck,
)

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_CHUNK = 1 << 20
_LARGEST_DOCUMENT = 8 * 1024 * 1024


class Blobs:
    """The folder ROOT/blobs/sha256; `scratch` must lie on the same file system."""

    def __init__(self, root: Path, scratch: Path) -> None:
        self.root = root
        self.folder = root / "blobs" / "sha256"
        self._scratch = scratch

    def prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.root / "oci-layout").write_bytes(_LAYOUT)

    def path(self, digest: Digest) -> Path:
        return self.folder / hex_of(digest)

    def has(self, digest: Digest) -> bool:
        return self.path(digest).exists()

    def document(self, digest: Digest) -> bytes:
        """A manifest or configuration, verified.  Raises NotFound; InvalidInput: it is damaged."""
        path = self.path(digest)
        try:
            if path.stat().st_size > _LARGEST_DOCUMENT:
                raise InvalidInput(f"{digest} is too large for a manifest or configuration.")
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise NotFound(f"The image store has no {digest}.") from error
        if digest_of(data) != digest:
            path.unlink(missing_ok=True)
            raise InvalidInput(f"The content of {digest} does not match its digest.")
        return data

    def put(self, data: bytes) -> Digest:
        digest = digest_of(data)
        if not self.has(digest):
            with tempfile.NamedTemporaryFile(dir=self._scratch, delete=False) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(file.name).rename(self.path(digest))
        return digest

    def put_file(self, source: Path, expected: Digest | None = None) -> Digest:
        """Copy a file in.  Raises InvalidInput: it has not the expected digest, or is no plain file."""
        if expected is not None and self.has(expected):
            return expected
        try:
            fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise InvalidInput(f"The archive lacks {expected or source.name}.") from error
        with open(fd, "rb") as file, tempfile.NamedTemporaryFile(dir=self._scratch, delete=False) as copy:  # noqa: PTH123
            digest = _copy(file, copy)
            os.fsync(copy.fileno())
        if expected not in (None, digest):
            Path(copy.name).unlink()
            raise InvalidInput(f"The content of {expected} does not match its digest (it has {digest}).")
        Path(copy.name).rename(self.path(digest))
        return digest

    def discard_damaged(self, digest: Digest) -> None:
        """Delete the blob if it does not match its name, so that it is fetched again."""
        with contextlib.suppress(FileNotFoundError), self.path(digest).open("rb") as file:
            if "sha256:" + hashlib.file_digest(file, "sha256").hexdigest() != digest:
                self.delete(digest)

    def put_image(self, layer: Digest, diff_id: Digest, cmd: tuple[str, ...]) -> Digest:
        """Make an image of one layer that is here already; answers the manifest's digest."""
        configuration = plain_configuration(diff_id, cmd)
        with self.path(layer).open("rb") as file:
            suffix = {b"\x1f\x8b": "+gzip", b"\x28\xb5": "+zstd"}.get(file.read(2), "")
        return self.put_manifest(
            Manifest(
                config=self.descriptor(self.put(configuration), OCI_CONFIG),
                layers=(self.descriptor(layer, OCI_LAYER + suffix),),
            )
        )

    def put_manifest(self, manifest: Manifest) -> Digest:
        return self.put(msgspec.json.encode(manifest))

    def with_healthcheck(self, digest: Digest, source: bytes) -> Digest:
        """The image, or one like it that has the health check of the configuration it was made from.

        Raises:
            InvalidInput: `source` is the configuration of another image.
        """
        manifest = read_manifest(self.document(digest))
        before = self.document(checked_digest(manifest.config.digest))
        configuration = with_healthcheck(before, source)
        if configuration == before:
            return digest
        config = self.descriptor(self.put(configuration), OCI_CONFIG)
        return self.put_manifest(msgspec.structs.replace(manifest, config=config))

    def descriptor(self, digest: Digest, media_type: str) -> Descriptor:
        return Descriptor(media_type=media_type, digest=digest, size=self.path(digest).stat().st_size)

    def all(self) -> dict[Digest, Bytes]:
        entries = os.scandir(self.folder)
        return {Digest(f"sha256:{entry.name}"): Bytes(entry.stat().st_size) for entry in entries}

    def delete(self, digest: Digest) -> None:
        self.path(digest).unlink(missing_ok=True)

    def layout_of(self, digest: Digest, folder: Path) -> Path:
        """Write an OCI layout that holds just this image, by hard links to its blobs.

        Tools take over its health check: where it has one, its manifest there is one of Docker's.
        """
        manifest = read_manifest(self.document(digest))
        inside = folder / "blobs" / "sha256"
        inside.mkdir(parents=True)
        for part in {digest, *(Digest(part.digest) for part in (manifest.config, *manifest.layers))}:
            (inside / hex_of(part)).hardlink_to(self.path(part))
        only = self.descriptor(digest, OCI_MANIFEST)
        if docker := as_docker(manifest, self.document(Digest(manifest.config.digest))):
            data = msgspec.json.encode(docker)
            only = Descriptor(media_type=docker.media_type, digest=digest_of(data), size=len(data))
            (inside / hex_of(digest_of(data))).write_bytes(data)
        (folder / "oci-layout").write_bytes(_LAYOUT)
        (folder / "index.json").write_bytes(msgspec.json.encode(Index(manifests=(only,))))
        return folder


def hex_of(digest: Digest) -> str:
    return checked_digest(digest).removeprefix("sha256:")


def _copy(source: IO[bytes], target: "tempfile._TemporaryFileWrapper[bytes]") -> Digest:
    seen = hashlib.sha256()
    while data := source.read(_CHUNK):
        seen.update(data)
        target.write(data)
    target.flush()
    return Digest("sha256:" + seen.hexdigest())
