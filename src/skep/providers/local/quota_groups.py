"""Quota groups of a btrfs pool: one for each disk, all of them in one for all disks."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

import structlog

from skep.model.errors import HostFailure
from skep.model.ids import Bytes
from skep.providers.local import btrfs

log = structlog.get_logger()


def limit_new(fd: int, size: Bytes) -> None:
    """Put the new subvolume, which is empty, into a group with this limit."""
    subvolume = btrfs.subvolume_id(fd)
    group = btrfs.group_of(subvolume)
    with contextlib.suppress(FileExistsError):
        btrfs.create_group(fd, group)
    btrfs.limit_group(fd, group, size)
    with tolerated(errno.EEXIST):
        btrfs.join_group(fd, group, btrfs.ALL_DISKS, member=True)
    btrfs.join_group(fd, subvolume, group, member=True)


def free_group(fd: int, subvolumes: list[int], group: int) -> None:
    """Delete the quota groups of deleted subvolumes.

    The kernel itself deletes a level-0 group once its blocks are freed (Linux 6.8); before that it is
    busy, which is no failure.  A level-1 group that stays is swept when the pool is entered again.
    """
    for subvolume in subvolumes:
        with tolerated(errno.ENOENT, errno.EINVAL):
            btrfs.join_group(fd, subvolume, group, member=False)
        with tolerated(errno.ENOENT, errno.EBUSY):
            btrfs.destroy_group(fd, subvolume)
    remove_group(fd, group)


def remove_group(fd: int, group: int) -> None:
    with tolerated(errno.ENOENT, errno.EINVAL):
        btrfs.join_group(fd, group, btrfs.ALL_DISKS, member=False)
    with tolerated(errno.ENOENT, errno.EBUSY):
        btrfs.destroy_group(fd, group)


def enable_quota(pool: int, groups: Path) -> None:
    if (groups / "enabled").exists() and (groups / "enabled").read_text().strip() == "1":
        return
    try:
        btrfs.enable_quota(pool, simple=True)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise HostFailure(f"Quotas cannot be enabled in the disk pool: {error.strerror}.") from error
        log.warning("pool.full_quotas", reason="the kernel does not know simple quotas (Linux 6.7)")
        btrfs.enable_quota(pool, simple=False)


@contextlib.contextmanager
def tolerated(*numbers: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in numbers:
            raise
