"""Directories as a tar, streamed while they are read: nothing is held in memory or on disk."""

import io
import os
import tarfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from skep.cli.failures import Exit, Failure

_CHUNK = 256 * 1024


def stream(root: Path, names: Iterable[str], extra: Mapping[str, bytes] | None = None) -> Iterator[bytes]:
    """The tar of `names` below `root` (parents first) and of `extra` files, chunk by chunk.

    Raises:
        Failure: a file cannot be read.
    """
    reader, writer = os.pipe()
    errors: list[Exception] = []
    thread = threading.Thread(target=_write, args=(writer, root, names, extra or {}, errors), daemon=True)
    thread.start()
    with open(reader, "rb", buffering=0) as pipe:  # noqa: PTH123 - a descriptor
        while chunk := pipe.read(_CHUNK):
            yield chunk
    thread.join()
    if errors:
        raise Failure(f"{root} cannot be read: {errors[0]}", Exit.INVALID) from errors[0]


def everything(root: Path) -> Iterator[str]:
    """All names below `root`, parents first."""
    for folder, folders, files in os.walk(root):
        for name in sorted([*folders, *files]):
            yield os.path.relpath(os.path.join(folder, name), root)  # noqa: PTH118 - text is quicker


def _write(
    descriptor: int, root: Path, names: Iterable[str], extra: Mapping[str, bytes], errors: list[Exception]
) -> None:
    try:
        with (
            open(descriptor, "wb") as pipe,
            tarfile.open(fileobj=pipe, mode="w|", format=tarfile.PAX_FORMAT) as tar,
        ):
            for name in names:
                _add(tar, root / name, name)
            for name, content in extra.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    except BrokenPipeError:
        return  # nobody reads any more: the upload was refused, and says so itself
    except Exception as error:
        errors.append(error)


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    info: tarfile.TarInfo | None = tar.gettarinfo(path, name)
    if info is None:  # a socket
        return
    _make_anonymous(info)
    if info.isreg():
        with path.open("rb") as file:
            tar.addfile(info, file)
    elif info.isdir() or info.issym() or info.islnk():
        tar.addfile(info)


def _make_anonymous(info: tarfile.TarInfo) -> None:
    """Who owns a file here is nobody's business there, and would spoil the build cache."""
    info.uid = info.gid = 0
    info.uname = info.gname = ""
