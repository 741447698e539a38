"""Unpack one tar into a directory, as a process of its own that cannot touch anything else.

Started by `layers.py` as `python -m skep.providers.local.images.unpacker`.  It opens the archive, changes
its root to the target directory, and only then begins to read: whatever names, links or `..` the archive
has, they lead nowhere else.  Stdin is a JSON `Job`, stdout a JSON `Result`, exit code 3 and stderr say why an
archive is refused.

Layers follow the OCI layer specification (image-spec, layer.md): whiteouts become what overlayfs expects
(character device 0:0, `trusted.overlay.opaque`).  Of other extended attributes only `security.capability`
and `user.*` are taken: `trusted.overlay.*` from outside could redirect lookups.
"""

import contextlib
import ctypes
import errno
import hashlib
import os
import posixpath
import resource
import shutil
import signal
import stat
import sys
import tarfile
import zlib
from collections.abc import Callable
from typing import IO, Literal, Protocol, TypeVar, cast

import msgspec
import zstandard

T = TypeVar("T")

REFUSED = 3
"""Exit code: the archive is wrong, not the host."""

_CHUNK = 1 << 20
_OPAQUE = ".wh..wh..opq"
_WHITEOUT = ".wh."
_SAFE_DEVICES = {(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)}
"""null, zero, full, random, urandom, tty, ptmx."""
_MEMORY = 2 << 30
_PR_SET_PDEATHSIG = 1
_FAULTS_OF_ARCHIVES = {
    errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL,
}  # fmt: skip
"""What names that contradict each other lead to; anything else is the host's fault."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """`layer` keeps owners, harmless devices and whiteouts; `files` only files, folders and links."""

    archive: str
    target: str
    mode: Literal["layer", "files"] = "layer"
    max_bytes: int
    max_entries: int


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """Digests of the archive as it is and of the tar inside; content bytes and entries written."""

    digest: str
    diff_id: str
    size: int
    entries: int


class Refused(Exception):
    """The archive is broken, hostile or too large."""


class _Reader(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class Hashing:
    """A reader that keeps the SHA-256 of what passed through it."""

    def __init__(self, source: _Reader) -> None:
        self.source = source
        self.hash = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        data = self.source.read(size)
        self.hash.update(data)
        return data

    def drain(self) -> None:
        while self.read(_CHUNK):
            pass

    @property
    def digest(self) -> str:
        return "sha256:" + self.hash.hexdigest()


class _Gunzip:
    """gzip, several members in a row as RFC 1952 allows, without the slow parts of the gzip module."""

    def __init__(self, source: _Reader) -> None:
        self.source = source
        self.inner = zlib.decompressobj(wbits=31)
        self.pending = b""

    def read(self, size: int = -1, /) -> bytes:
        while True:
            data = self.pending or self.source.read(_CHUNK)
            if not data and not self.inner.eof:
                raise Refused("the archive ends in the middle of its gzip stream")
            if not data:
                return b""
            if self.inner.eof:
                if not data.strip(b"\0"):
                    self.pending = b""
                    continue
                self.inner = zlib.decompressobj(wbits=31)
            out = self.inner.decompress(data, size if size > 0 else _CHUNK)
            self.pending = self.inner.unused_data if self.inner.eof else self.inner.unconsumed_tail
            if out:
                return out


class Buffered:
    """Reads exactly what was asked for, as tarfile expects, and stops a bomb."""

    def __init__(self, source: _Reader, limit: int) -> None:
        self.source = source
        self.left = limit
        self.rest = memoryview(b"")

    def read(self, size: int = -1, /) -> bytes:
        parts: list[bytes | memoryview] = []
        while size > 0:
            if not self.rest:
                self.rest = memoryview(self.source.read(_CHUNK))
                self.left -= len(self.rest)
                if self.left < 0:
                    raise Refused("the archive unpacks to more than the limit")
                if not self.rest:
                    break
            parts.append(self.rest[:size])
            size -= len(parts[-1])
            self.rest = self.rest[len(parts[-1]) :]
        return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)


class Extractor:
    """Writes the entries of a tar below `/`, which is the target directory by now."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.layer = job.mode == "layer"
        self.folders = {"/"}
        self.late: dict[str, tarfile.TarInfo] = {}
        self.size = 0
        self.entries = 0

    def extract(self, tar: tarfile.TarFile) -> None:
        for member in tar:
            cast(list[tarfile.TarInfo], vars(tar)["members"]).clear()  # kept for a random access we never do
            self.entries += 1
            if self.entries > self.job.max_entries:
                raise Refused(f"the archive has more than {self.job.max_entries} entries")
            self.size += member.size if member.isreg() else 0
            if self.size > self.job.max_bytes:
                raise Refused("the archive unpacks to more than the limit")
            self._entry(tar, member)
        for path in sorted(self.late, reverse=True):
            self._finish_folder(path, self.late[path])

    def _entry(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = posixpath.normpath("/" + member.name.lstrip("/"))
        folder, name = posixpath.split(path)
        if "\0" in path:
            raise Refused("a name in the archive has a NUL")
        self._parents(folder)
        if self.layer and name.startswith(_WHITEOUT):
            self._whiteout(folder, name)
        elif member.isdir():
            self._folder(path, member)
        else:
            self._other(tar, member, path)

    def _other(self, tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        if path == "/":
            raise Refused("an entry of the archive would replace its root")
        if member.isreg():
            self._file(tar, member, path)
        elif member.issym():
            _replacing(path, lambda: os.symlink(member.linkname, path))  # noqa: PTH211
            self._owner_and_times(path, member)
        elif member.islnk():
            self._hard_link(member, path)
        elif self.layer and (member.isfifo() or member.ischr()):
            self._special(member, path)

    def _parents(self, folder: str) -> None:
        if folder in self.folders:
            return
        os.makedirs(folder, 0o755, exist_ok=True)  # noqa: PTH103 - paths are plain text here for speed
        self.folders.add(folder)

    def _whiteout(self, folder: str, name: str) -> None:
        hidden = name[len(_WHITEOUT) :]
        if name == _OPAQUE:
            os.setxattr(folder, "trusted.overlay.opaque", b"y")
        elif hidden.startswith(_WHITEOUT):
            return  # metadata of aufs
        elif hidden in ("", ".", ".."):
            raise Refused(f"{name!r} hides nothing that can exist")
        else:  # The same layer may bring what it hides from the layers below; then there is nothing to do.
            with contextlib.suppress(FileExistsError):
                os.mknod(posixpath.join(folder, hidden), stat.S_IFCHR, os.makedev(0, 0))

    def _folder(self, path: str, member: tarfile.TarInfo) -> None:
        try:
            os.mkdir(path, 0o700)  # noqa: PTH102
        except FileExistsError:
            if path != "/" and not stat.S_ISDIR(os.lstat(path).st_mode):
                os.unlink(path)  # noqa: PTH108
                os.mkdir(path, 0o700)  # noqa: PTH102
        self.folders.add(path)
        self.late[path] = member

    def _finish_folder(self, path: str, member: tarfile.TarInfo) -> None:
        """Modes and times of folders last: writing into them changes both."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if stat.S_ISDIR(os.lstat(path).st_mode):
                self._owner_and_times(path, member, mode=True)

    def _file(self, tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        mode = member.mode & (0o7777 if self.layer else 0o777)
        fd = _replacing(path, lambda: os.open(path, flags, 0o600))
        try:
            _copy(tar, member, fd)
            self._owner(fd, member)
            os.fchmod(fd, mode)
            self._attributes(fd, member)
            os.utime(fd, ns=_times(member))
        finally:
            os.close(fd)

    def _hard_link(self, member: tarfile.TarInfo, path: str) -> None:
        target = posixpath.normpath("/" + member.linkname.lstrip("/"))
        if target == path:
            return
        try:
            _replacing(path, lambda: os.link(target, path, follow_symlinks=False))
        except (FileNotFoundError, PermissionError, NotADirectoryError) as error:
            raise Refused(f"{member.name!r} is a link to {member.linkname!r}, which is not there") from error

    def _special(self, member: tarfile.TarInfo, path: str) -> None:
        kind = stat.S_IFIFO if member.isfifo() else stat.S_IFCHR
        device = (0, 0) if member.isfifo() else (member.devmajor, member.devminor)
        if member.ischr() and device not in _SAFE_DEVICES:
            return
        _replacing(path, lambda: os.mknod(path, kind | 0o600, os.makedev(*device)))
        self._owner_and_times(path, member, mode=True)

    def _owner_and_times(self, path: str, member: tarfile.TarInfo, *, mode: bool = False) -> None:
        self._owner(path, member)
        if mode:
            os.chmod(path, member.mode & 0o7777)  # noqa: PTH101
            self._attributes(path, member)
        os.utime(path, ns=_times(member), follow_symlinks=False)

    def _owner(self, what: int | str, member: tarfile.TarInfo) -> None:
        if self.layer and (member.uid or member.gid):
            os.chown(what, member.uid, member.gid, follow_symlinks=isinstance(what, int))

    def _attributes(self, what: int | str, member: tarfile.TarInfo) -> None:
        if not self.layer:
            return
        for key, value in member.pax_headers.items():
            name = key.removeprefix("SCHILY.xattr.")
            if name != key and (name == "security.capability" or name.startswith("user.")):
                os.setxattr(what, name, value.encode("utf-8", "surrogateescape"))


def _copy(tar: tarfile.TarFile, member: tarfile.TarInfo, fd: int) -> None:
    source = tar.extractfile(member)
    while source is not None and (data := source.read(_CHUNK)):
        os.write(fd, data) if len(data) < _CHUNK else _write_all(fd, data)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _replacing(path: str, make: Callable[[], T]) -> T:
    """Make something; what stands in its place (an earlier entry of the same archive) goes."""
    try:
        return make()
    except FileExistsError:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path)
        else:
            os.unlink(path)  # noqa: PTH108
        return make()


def _times(member: tarfile.TarInfo) -> tuple[int, int]:
    nanoseconds = max(0, min(int(member.mtime * 1_000_000_000), (1 << 62)))
    return nanoseconds, nanoseconds


def decompressed(source: _Reader, first: bytes) -> _Reader:
    """What is inside, told by the first bytes: gzip, zstd, or the tar itself."""
    if first.startswith(b"\x1f\x8b"):
        return _Gunzip(source)
    if first.startswith(b"\x28\xb5\x2f\xfd"):
        return zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(
            cast(IO[bytes], source), read_across_frames=True
        )
    return source


def unpack(job: Job) -> Result:
    """Unpack and answer what was found.  Changes the root of this process: for a process of its own."""
    with open(job.archive, "rb", buffering=0) as file:  # noqa: PTH123
        first = os.pread(file.fileno(), 4, 0)
        os.chroot(job.target)
        os.chdir("/")
        sys.meta_path.clear()  # a module that is imported from now on would come out of the archive
        os.umask(0)
        outer = Hashing(file)
        inner = Hashing(decompressed(outer, first))
        extractor = Extractor(job)
        limited = Buffered(inner, job.max_bytes + job.max_entries * 4096)
        with tarfile.open(
            fileobj=cast(IO[bytes], limited), mode="r|", bufsize=_CHUNK, errors="surrogateescape"
        ) as tar:
            extractor.extract(tar)
        inner.drain()
        outer.drain()
    return Result(digest=outer.digest, diff_id=inner.digest, size=extractor.size, entries=extractor.entries)


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # nobody waits for the result of an orphan
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    try:
        result = unpack(job)
    except OSError as error:
        if error.errno not in _FAULTS_OF_ARCHIVES:
            raise
        print(f"{error.filename or 'an entry'}: {error.strerror}", file=sys.stderr)
        sys.exit(REFUSED)
    except (Refused, tarfile.TarError, zlib.error, zstandard.ZstdError, MemoryError, UnicodeError) as error:
        print(str(error) or "the archive is broken", file=sys.stderr)
        sys.exit(REFUSED)
    sys.stdout.buffer.write(msgspec.json.encode(result))


if __name__ == "__main__":
    main()
