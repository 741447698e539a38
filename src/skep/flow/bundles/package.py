"""A bundle as files, as bytes, and as a hash that depends on nothing but what is in the files."""

import hashlib
import io
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Self

import zstandard

from skep.flow.bundles.manifest import MANIFEST, Manifest, read_manifest
from skep.flow.bundles.refusals import BundleRefused

LARGEST = 50 * 1024 * 1024
"""Bytes of a bundle, unpacked."""
MOST_FILES = 10_000
_BLOCK = 512


@dataclass(frozen=True)
class Package:
    """`files` maps relative POSIX paths to contents; those in `programs` are executable."""

    files: Mapping[str, bytes]
    programs: frozenset[str] = frozenset()

    @classmethod
    def of_directory(cls, directory: Path) -> Self:
        """Everything but hidden files and compiled code.

        Raises:
            BundleRefused: no directory, a link that leads out, a socket or device, too large.
        """
        if not directory.is_dir():
            raise BundleRefused([f"{directory} is not a directory"])
        files: dict[str, bytes] = {}
        programs: set[str] = set()
        size = 0
        for path in _files(directory):
            name = path.relative_to(directory).as_posix()
            size += path.stat().st_size
            if size > LARGEST or len(files) >= MOST_FILES:
                raise _too_large()
            files[name] = path.read_bytes()
            if path.stat().st_mode & stat.S_IXUSR:
                programs.add(name)
        return cls(files, frozenset(programs))

    @classmethod
    def of_content(cls, content: bytes) -> Self:
        """From its packed form, which may come from anybody.

        Raises:
            BundleRefused: not a package, a name that leads out of it, a link, a device, too large.
        """
        files: dict[str, bytes] = {}
        programs: set[str] = set()
        try:
            with tarfile.open(fileobj=io.BytesIO(_decompress(content)), mode="r:") as archive:
                for member in archive:
                    name = _checked_name(member, files)
                    source = archive.extractfile(member)
                    files[name] = source.read() if source is not None else b""
                    if member.mode & stat.S_IXUSR:
                        programs.add(name)
        except (tarfile.TarError, zstandard.ZstdError, EOFError) as error:
            raise BundleRefused([f"this is no bundle: {error}"]) from error
        return cls(files, frozenset(programs))

    @cached_property
    def archive(self) -> bytes:
        """A tar of sorted names without times and owners."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name in sorted(self.files):
                member = tarfile.TarInfo(name)
                member.size = len(self.files[name])
                member.mode = 0o755 if name in self.programs else 0o644
                archive.addfile(member, io.BytesIO(self.files[name]))
        return buffer.getvalue()

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the archive, in hexadecimal; the compressed form depends on the compressor."""
        return hashlib.sha256(self.archive).hexdigest()

    @cached_property
    def content(self) -> bytes:
        """As it is stored and sent: the archive, compressed."""
        return zstandard.ZstdCompressor(level=9).compress(self.archive)

    @cached_property
    def manifest(self) -> Manifest:
        """Raises BundleRefused: there is none, or it has faults."""
        return read_manifest(self.text(MANIFEST))

    @property
    def flows(self) -> tuple[str, ...]:
        """The names of the flow documents: at the top, or in `flows/`."""
        paths = (PurePosixPath(name) for name in sorted(self.files))
        return tuple(
            str(path)
            for path in paths
            if path.suffix == ".yaml" and str(path.parent) in (".", "flows") and str(path) != MANIFEST
        )

    def text(self, name: str) -> str:
        try:
            return self.files[name].decode()
        except KeyError as error:
            raise BundleRefused([f"the bundle has no {name}"]) from error
        except UnicodeDecodeError as error:
            raise BundleRefused([f"{name} is not UTF-8: {error}"]) from error

    def unpack(self, directory: Path) -> Path:
        """Write the files, all or nothing; a directory that exists is complete already."""
        if directory.exists():
            return directory
        directory.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=directory.parent))
        try:
            for name, content in self.files.items():
                path = draft / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                path.chmod(0o555 if name in self.programs else 0o444)
            draft.chmod(0o755)
            draft.rename(directory)
        except OSError:
            if not directory.exists():  # else somebody else was faster
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return directory


def _files(directory: Path) -> Iterator[Path]:
    root = directory.resolve()
    for parent, folders, names in os.walk(directory):
        folders[:] = sorted(name for name in folders if name != "__pycache__" and not name.startswith("."))
        for name in (*folders, *sorted(names)):
            path = Path(parent, name)
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise BundleRefused([f"{path.relative_to(directory)} is a link that leads out of the bundle"])
            if path.is_symlink() and path.is_dir():
                raise BundleRefused([f"{path.relative_to(directory)} is a link to a directory"])
        for name in sorted(names):
            path = Path(parent, name)
            if name.startswith(".") or name.endswith(".pyc"):
                continue
            if not path.is_file():
                raise BundleRefused([f"{path.relative_to(directory)} is not a file"])
            yield path


def _decompress(content: bytes) -> bytes:
    most = LARGEST + MOST_FILES * 4 * _BLOCK
    with zstandard.ZstdDecompressor().stream_reader(content) as reader:
        archive = reader.read(most + 1)
    if len(archive) > most:
        raise _too_large()
    return archive


def _checked_name(member: tarfile.TarInfo, files: Mapping[str, bytes]) -> str:
    path = PurePosixPath(member.name)
    if not member.isreg():
        raise BundleRefused([f"{member.name!r} is not a plain file"])
    if (
        path.is_absolute()
        or ".." in path.parts
        or not path.parts
        or "\\" in member.name
        or "\0" in member.name
    ):
        raise BundleRefused([f"the name {member.name!r} leads out of the bundle"])
    if str(path) in files:
        raise BundleRefused([f"{member.name!r} is in it twice"])
    if len(files) >= MOST_FILES or member.size > LARGEST:
        raise _too_large()
    return str(path)


def _too_large() -> BundleRefused:
    return BundleRefused([f"a bundle has at most {MOST_FILES} files and {LARGEST // 1024**2} MiB in all"])
