"""Reading archives without unpacking them: what is not to run on this machine need not be there."""

import re
import shutil
import tarfile
import zlib
from pathlib import Path
from typing import IO, cast

import zstandard

from skep.model.errors import InvalidInput
from skep.model.ids import Digest
from skep.providers.local.images.layers import UnpackLimits
from skep.providers.local.images.unpacker import Buffered, Hashing, Refused, decompressed

_PART = re.compile(r"oci-layout|index\.json|blobs/sha256/[0-9a-f]{64}")
_BROKEN = (tarfile.TarError, zlib.error, zstandard.ZstdError, Refused, EOFError, OSError, UnicodeError)


def layout_of_tar(source: Path, into: Path, limits: UnpackLimits | None = None) -> Path:
    """The OCI layout that is in a plain tar, as a new folder; whatever else is there is passed over.

    Raises:
        InvalidInput: it is no tar, or too large.
    """
    most = int((limits or UnpackLimits()).bytes)
    (into / "blobs" / "sha256").mkdir(parents=True)
    try:
        with tarfile.open(source, "r:*") as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                if not member.isreg() or not _PART.fullmatch(name):
                    continue
                most -= member.size
                if most < 0:
                    raise InvalidInput(f"{source.name} is too large for an image.")
                _copy(tar, member, into / name)
    except _BROKEN as error:
        raise InvalidInput(f"{source.name} is no OCI layout in a tar: {error}") from error
    return into


def diff_id_of(source: Path, limits: UnpackLimits | None = None) -> Digest:
    """The digest of the tar inside, which may be compressed with gzip or zstd.

    Raises:
        InvalidInput: it is no tar, is empty, or too large.
    """
    bounds = limits or UnpackLimits()
    with source.open("rb") as file:
        first = file.read(4)
        file.seek(0)
        inner = Hashing(decompressed(file, first))
        limited = Buffered(inner, bounds.bytes)
        try:
            with tarfile.open(fileobj=cast(IO[bytes], limited), mode="r|", bufsize=1 << 20) as tar:
                entries = sum(1 for _ in tar)
            inner.drain()
        except _BROKEN as error:
            raise InvalidInput(f"{source.name} holds no root file system: {error}") from error
    if not entries:
        raise InvalidInput(f"{source.name} holds no root file system: it is empty.")
    return Digest(inner.digest)


def _copy(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    content = tar.extractfile(member)
    if content is not None:
        with target.open("wb") as file:
            shutil.copyfileobj(content, file, 1 << 20)
