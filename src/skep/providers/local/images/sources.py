"""What a file or folder given to `load` is, and reading the OCI layouts among them."""

import re
import tarfile
from enum import StrEnum
from pathlib import Path, PurePosixPath

import msgspec

from skep.model.errors import InvalidInput
from skep.model.ids import Digest
from skep.providers.local.images.blobs import Blobs
from skep.providers.local.images.manifests import (
    Descriptor,
    checked_digest,
    for_this_host,
    read_index,
    read_manifest,
)

_PART_OF_ARCHIVE = re.compile(
    r"(oci-layout|index\.json|manifest\.json|repositories|blobs(/.*)?|[0-9a-f]{64}(\.json|\.tar|/.*)?|\.)"
)
_LARGEST_INDEX = 4 * 1024 * 1024


class Kind(StrEnum):
    OCI_FOLDER = "OCI layout"
    OCI_TAR = "OCI layout in a tar"
    DOCKER_TAR = "docker-archive"
    ROOT_TAR = "root file system"


class _Saved(msgspec.Struct, frozen=True, rename="pascal"):
    """An entry of docker-archive's manifest.json."""

    config: str = ""
    repo_tags: tuple[str, ...] | None = None


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """An image in a docker-archive: its references there, and its configuration."""

    names: tuple[str, ...]
    configuration: bytes


def detect(source: Path) -> Kind:
    """Raises InvalidInput: it is nothing that can become an image."""
    if source.is_dir():
        if (source / "oci-layout").is_file():
            return Kind.OCI_FOLDER
        raise InvalidInput(f"{source.name} is a folder, but no OCI layout (it has no file `oci-layout`).")
    if not source.is_file():
        raise InvalidInput(f"There is no file {source.name}.")
    names = _marks(source)
    if {"oci-layout", "index.json"} <= names:
        return Kind.OCI_TAR
    return Kind.DOCKER_TAR if "manifest.json" in names else Kind.ROOT_TAR


def saved_images(source: Path) -> list[Saved]:
    """The images of a docker-archive, in their order there."""
    try:
        with tarfile.open(source, "r:*") as tar:
            entries = msgspec.json.decode(_member(tar, "manifest.json"), type=tuple[_Saved, ...])
            return [
                Saved(names=entry.repo_tags or (), configuration=_member(tar, entry.config))
                for entry in entries
            ]
    except (tarfile.TarError, OSError, EOFError, KeyError, msgspec.MsgspecError) as error:
        raise InvalidInput(f"The manifest of the docker-archive cannot be read: {error}") from error


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    return file.read(_LARGEST_INDEX) if file else b""


def import_layout(folder: Path, blobs: Blobs) -> dict[str, Digest]:
    """Copy the images of an OCI layout into the store, verified; answers manifests by reference.

    Raises:
        InvalidInput: a blob is missing or does not match its digest.
    """
    index = read_index(_read_plain(folder / "index.json"))
    named: dict[str, list[Descriptor]] = {}
    for descriptor in index.manifests:
        named.setdefault(descriptor.name, []).append(descriptor)
    if not named:
        raise InvalidInput("The OCI layout holds no image.")
    chosen = {name: for_this_host(msgspec.structs.replace(index, manifests=tuple(found)))
              for name, found in named.items()}  # fmt: skip
    return {name: _import_manifest(folder, descriptor, blobs) for name, descriptor in chosen.items()}


def _import_manifest(folder: Path, descriptor: Descriptor, blobs: Blobs, depth: int = 0) -> Digest:
    digest = _import_blob(folder, descriptor, blobs)
    if descriptor.is_index:
        if depth > 1:
            raise InvalidInput("The OCI layout nests indexes too deeply.")
        inner = for_this_host(read_index(blobs.document(digest)))
        return _import_manifest(folder, inner, blobs, depth + 1)
    manifest = read_manifest(blobs.document(digest))
    for part in (manifest.config, *manifest.layers):
        _import_blob(folder, part, blobs)
    return digest


def _import_blob(folder: Path, descriptor: Descriptor, blobs: Blobs) -> Digest:
    digest = checked_digest(descriptor.digest)
    return blobs.put_file(folder / "blobs" / "sha256" / digest.removeprefix("sha256:"), digest)


def _read_plain(path: Path) -> bytes:
    if path.is_symlink() or not path.is_file() or path.stat().st_size > _LARGEST_INDEX:
        raise InvalidInput(f"The OCI layout has no proper {path.name}.")
    return path.read_bytes()


def _marks(source: Path) -> set[str]:
    """The telling names at the top of an archive; stops at the first that no image archive has.

    So a large root file system is not read to its end.
    """
    names: set[str] = set()
    try:
        with tarfile.open(source, "r:*") as tar:
            for member in tar:
                name = str(PurePosixPath(member.name))
                if not _PART_OF_ARCHIVE.fullmatch(name):
                    break
                names.add(name)
    except (tarfile.TarError, OSError, EOFError):
        pass  # A zstd tar, for one; the unpacker has the last word.
    return names
