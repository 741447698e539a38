"""The btrfs calls of the kernel that disks need, without a process for each.

Numbers and layouts are those of <linux/btrfs.h> and <linux/btrfs_tree.h>.  Every function takes an open
directory of the file system, may block for a transaction, and raises OSError with the kernel's errno.

A disk is limited by a level-1 quota group `1/<subvolume id>` around its own level-0 group: with simple
quotas a subvolume made *inside* the disk joins the parents of its parent's group, so a tenant cannot leave
the limit by making subvolumes (which needs no privilege).
"""

import ctypes
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

_MAGIC = 0x94
_VOL_ARGS = 4096
_FIRST_FREE_OBJECT = 256
"""The inode of a subvolume's root directory (BTRFS_FIRST_FREE_OBJECTID)."""
_SUBVOL_READ_ONLY = 1 << 1
_RENAME_EXCHANGE = 1 << 1
_SUBVOL_SPEC_BY_ID = 1 << 4
_ROOT_TREE = 1
_ROOT_REF = 156
_LIMIT_MAX_RFER = 1 << 0
_NO_LIMIT = (1 << 64) - 1
_ENABLE_FULL, _ENABLE_SIMPLE = 1, 4
_HANDLE_WITHOUT_PARENT = 0x4D
_libc = ctypes.CDLL(None, use_errno=True)


def _code(direction: int, number: int, size: int) -> int:
    return (direction << 30) | (size << 16) | (_MAGIC << 8) | number


_RESIZE = _code(1, 3, _VOL_ARGS)
_SYNC = _code(0, 8, 0)
_SUBVOL_CREATE = _code(1, 14, _VOL_ARGS)
_SNAP_DESTROY = _code(1, 15, _VOL_ARGS)
_TREE_SEARCH = _code(3, 17, 4096)
_INO_LOOKUP = _code(3, 18, 4096)
_SNAP_CREATE_V2 = _code(1, 23, _VOL_ARGS)
_SUBVOL_SETFLAGS = _code(1, 26, 8)
_FS_INFO = _code(2, 31, 1024)
_QUOTA_CTL = _code(3, 40, 16)
_QGROUP_ASSIGN = _code(1, 41, 24)
_QGROUP_CREATE = _code(1, 42, 16)
_QGROUP_LIMIT = _code(2, 43, 48)
_SNAP_DESTROY_V2 = _code(1, 63, _VOL_ARGS)


@contextmanager
def directory(path: Path) -> Iterator[int]:
    """A file descriptor of the directory, for the calls below."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def file_system_id(fd: int) -> str:
    """The UUID under which the file system stands in /sys/fs/btrfs."""
    raw = _call(fd, _FS_INFO, bytes(1024))[16:32].hex()
    return "-".join((raw[:8], raw[8:12], raw[12:16], raw[16:20], raw[20:]))


def sync(fd: int) -> None:
    """Commit the running transaction."""
    fcntl.ioctl(fd, _SYNC, 0)


def grow(fd: int) -> None:
    """Let the file system fill its device."""
    _call(fd, _RESIZE, struct.pack("=q4088s", 0, b"max"))


def is_subvolume(fd: int) -> bool:
    return os.fstat(fd).st_ino == _FIRST_FREE_OBJECT


def create_subvolume(parent: int, name: str) -> None:
    _call(parent, _SUBVOL_CREATE, struct.pack("=q4088s", 0, name.encode()))


def snapshot_subvolume(source: int, parent: int, name: str, *, read_only: bool) -> None:
    """Make a subvolume of that name in `parent` that holds what `source` holds now."""
    flags = _SUBVOL_READ_ONLY if read_only else 0
    _call(parent, _SNAP_CREATE_V2, struct.pack("=qQQ32s4040s", source, 0, flags, b"", name.encode()))


def exchange(one: Path, other: Path) -> None:
    """Each gets the other's name, at one moment (renameat2)."""
    here = -100  # AT_FDCWD
    if _libc.renameat2(here, os.fsencode(one), here, os.fsencode(other), _RENAME_EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one))


def subvolume_id(fd: int) -> int:
    """The id of the subvolume that `fd` lies in."""
    answer = _call(fd, _INO_LOOKUP, struct.pack("=QQ4080s", 0, _FIRST_FREE_OBJECT, b""))
    return int(struct.unpack_from("=Q", answer)[0])


class Inner(msgspec.Struct, frozen=True):
    """A subvolume that lies in a directory (an inode) of another one."""

    id: int
    parent: int
    directory: int
    name: bytes


def inner_subvolumes(fd: int, subvolume: int) -> list[Inner]:
    """The subvolumes that lie directly in `subvolume`, wherever in its tree."""
    found: list[Inner] = []
    first = 0
    while True:
        key = struct.pack("=7Q4I4Q", *_search_range(subvolume, first))
        answer = _call(fd, _TREE_SEARCH, key + bytes(4096 - len(key)))
        items = int(struct.unpack_from("=I", answer, 64)[0])
        if not items:
            return found
        offset = 104
        for _ in range(items):
            _, _, child, kind, length = struct.unpack_from("=QQQII", answer, offset)
            if kind == _ROOT_REF:
                folder, _, size = struct.unpack_from("=QQH", answer, offset + 32)
                found.append(Inner(child, subvolume, folder, answer[offset + 50 : offset + 50 + size]))
            offset += 32 + length
            first = child + 1


def _search_range(subvolume: int, first: int) -> tuple[int, ...]:
    """Fields of struct btrfs_ioctl_search_key: tree, objectids, offsets, transids, types, items, unused."""
    ids = (_ROOT_TREE, subvolume, subvolume, first, _NO_LIMIT, 0, _NO_LIMIT)
    return (*ids, _ROOT_REF, _ROOT_REF, 4096, 0, 0, 0, 0, 0)


def destroy_subvolume(fd: int, subvolume: int) -> list[int]:
    """Delete it with the subvolumes in it; answers the ids of all.

    A tenant may nest them deeper than calls or paths can be here, and make them read-only, which the kernel
    would take for a reason to keep what lies in them.  The blocks are freed in the background.
    """
    outside_in = inner_subvolumes(fd, subvolume)
    for one in outside_in:
        outside_in += inner_subvolumes(fd, one.id)
    for parent in {one.parent for one in outside_in}:
        with _inode(fd, parent, _FIRST_FREE_OBJECT) as root:
            _call(root, _SUBVOL_SETFLAGS, bytes(8))
    for one in reversed(outside_in):
        with _inode(fd, one.parent, one.directory) as folder:
            _call(folder, _SNAP_DESTROY, struct.pack("=q4088s", 0, one.name))
    arguments = struct.pack("=qQQ32sQ", 0, 0, _SUBVOL_SPEC_BY_ID, b"", subvolume)
    _call(fd, _SNAP_DESTROY_V2, arguments + bytes(_VOL_ARGS - len(arguments)))
    return [*(one.id for one in reversed(outside_in)), subvolume]


@contextmanager
def _inode(fd: int, subvolume: int, inode: int) -> Iterator[int]:
    """A directory by its file handle (fs/btrfs/export.h), however long its path is."""
    handle = struct.pack("=IiQQI", 20, _HANDLE_WITHOUT_PARENT, inode, subvolume, 0)
    opened = int(_libc.open_by_handle_at(fd, handle, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    if opened < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), f"subvolume {subvolume}")
    try:
        yield opened
    finally:
        os.close(opened)


def enable_quota(fd: int, *, simple: bool) -> None:
    """Raises EINVAL: the kernel does not know simple quotas."""
    _call(fd, _QUOTA_CTL, struct.pack("=QQ", _ENABLE_SIMPLE if simple else _ENABLE_FULL, 0))


ALL_DISKS = (2 << 48) | 1
"""The level-2 group around the groups of all disks."""


def group_of(subvolume: int) -> int:
    """The level-1 quota group around a subvolume; its number is the subvolume's own."""
    return (1 << 48) | subvolume


def group_name(group: int) -> str:
    """The group's directory in sysfs: `level_number`."""
    return f"{group >> 48}_{group & ((1 << 48) - 1)}"


def create_group(fd: int, group: int) -> None:
    _call(fd, _QGROUP_CREATE, struct.pack("=QQ", 1, group))


def destroy_group(fd: int, group: int) -> None:
    _call(fd, _QGROUP_CREATE, struct.pack("=QQ", 0, group))


def join_group(fd: int, inner: int, outer: int, *, member: bool) -> None:
    """Put a group (or the subvolume with this id) into one of a higher level, or take it out."""
    _call(fd, _QGROUP_ASSIGN, struct.pack("=QQQ", member, inner, outer))


def limit_group(fd: int, group: int, size: int | None) -> None:
    """Limit what the group's subvolumes hold together, in bytes; None lifts the limit."""
    most = _NO_LIMIT if size is None else size
    _call(fd, _QGROUP_LIMIT, struct.pack("=QQQQQQ", group, _LIMIT_MAX_RFER, most, 0, 0, 0))


def _call(fd: int, code: int, arguments: bytes) -> bytes:
    buffer = bytearray(arguments)
    fcntl.ioctl(fd, code, buffer)
    return bytes(buffer)
