"""An empty data disk receives what the image has at its target, as Compose promises for named volumes."""

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from skep.model.errors import HostFailure
from skep.providers.local.images.sandbox import Room, inside
from skep.providers.local.kernel import open_in_root

_UNDERWAY = "trusted.skep.copy-up"
"""Marks a disk whose copy was begun and not finished: it counts as empty, and is emptied first."""
_IMAGE, _DISK = "/copy/image", "/copy/disk"
"""Where the room shows them."""
_IGNORED = frozenset({"lost+found"})


def copy_up(rootfs: Path, target: str, disk: Path) -> None:
    """Copy with owners, modes and extended attributes; a disk with content, or no such directory, is success.

    The image belongs to a tenant: its symlinks are copied as such and never followed, and the target is
    looked up as a process inside would see it.  Two containers that share the disk take turns.  One that
    runs already may put links in the place of folders while we copy, so the copying has nothing of the host
    around it but programs.

    Raises:
        HostFailure: the disk is too small, or the copy failed.
    """
    with _alone(disk):
        if _content(disk) and not _underway(disk):
            return
        try:
            source = open_in_root(rootfs, target, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return
        try:
            _copy(source, disk)
        finally:
            os.close(source)


def _copy(source: int, disk: Path) -> None:
    os.setxattr(disk, _UNDERWAY, b"1")
    for entry in _content(disk):
        subprocess.run(["/bin/rm", "-rf", "--one-file-system", "--", disk / entry], check=True)
    with tempfile.TemporaryDirectory(prefix="skep-copy-") as base:
        room = Room(
            base=Path(base), writable={_DISK: disk}, readable={_IMAGE: Path(f"/proc/self/fd/{source}")}
        )
        done = subprocess.run(
            inside(room, ["cp", "-a", "--reflink=auto", "--", f"{_IMAGE}/.", f"{_DISK}/"]),
            pass_fds=[source],
            capture_output=True,
            check=False,
            env={"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": "/run/empty"},
        )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise HostFailure(f"What the image has could not be copied to the disk: {said[-1] if said else ''}")
    os.removexattr(disk, _UNDERWAY)


def _content(disk: Path) -> set[str]:
    return {entry.name for entry in os.scandir(disk)} - _IGNORED


def _underway(disk: Path) -> bool:
    try:
        return bool(os.getxattr(disk, _UNDERWAY))
    except OSError:
        return False


@contextmanager
def _alone(disk: Path) -> Iterator[None]:
    descriptor = os.open(disk, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
