"""The few system calls that Python has no word for: mount(2), umount2(2), openat2(2).

Used by everything in this room that touches mounts or looks into a container's file system from outside.
Errors are `OSError` with the kernel's errno.
"""

import ctypes
import errno
import os
import time
from pathlib import Path

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8
_OPENAT2 = 437
"""The same number on every architecture (since Linux 5.6)."""
_RESOLVE_NO_MAGICLINKS, _RESOLVE_IN_ROOT = 0x02, 0x10

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def mount(source: str, target: Path, kind: str, flags: int = 0, options: str = "") -> None:
    """mount(2).  `options` longer than a page are refused by the kernel."""
    result = _libc.mount(
        os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), os.fsencode(options)
    )
    _check(result, str(target))


def unmount(target: Path) -> None:
    """Unmount everything stacked on `target`; what is not mounted or not there is success.

    A busy mount is waited for shortly and then detached lazily, so that it disappears with its last user.
    """
    patience = 5
    while True:
        flags = UMOUNT_NOFOLLOW | (0 if patience > 0 else MNT_DETACH)
        if _libc.umount2(os.fsencode(target), flags) == 0:
            continue
        number = ctypes.get_errno()
        if number in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):
            return
        if number != errno.EBUSY or patience <= 0:
            raise OSError(number, os.strerror(number), str(target))
        patience -= 1
        time.sleep(0.01)


def is_mounted(target: Path) -> bool:
    """Whether `target` is the root of another file system than its parent."""
    try:
        return os.lstat(target).st_dev != os.lstat(target.parent).st_dev
    except FileNotFoundError:
        return False


def open_in_root(root: Path, path: str, flags: int) -> int:
    """Open `path` as a process chrooted to `root` would see it, and answer the descriptor.

    Symlinks and `..` cannot lead out of the root (openat2(2), RESOLVE_IN_ROOT), nor can /proc's magic links.
    """
    anchor = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        how = _OpenHow(flags | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
        result = int(
            _libc.syscall(_OPENAT2, anchor, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
        )
        _check(result, path)
        return result
    finally:
        os.close(anchor)


def _check(result: int, subject: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), subject)
