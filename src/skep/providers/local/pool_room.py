"""How much the disks of a btrfs pool hold, one by one and together, and whether there is room for more."""

import errno
import os
from pathlib import Path

from skep.model.errors import Exhausted
from skep.model.host import PoolUsage
from skep.model.ids import Bytes
from skep.providers.local import btrfs
from skep.providers.local.quota_groups import enable_quota, tolerated

RESERVE = Bytes(64 * 1024 * 1024)
"""What all disks together leave free, so that btrfs always has room for its metadata (or 3 %, if more).

Without it, data may take the whole pool, and then nothing can be made or sometimes even deleted.
"""
ROOM_FOR_A_DISK = 1024 * 1024
ADVICE = "Delete disks or enlarge the pool."
_RESERVED_PART = 0.03


class PoolRoom:
    """Of the pool mounted at `mount`; `below`: the folder that its file is in, unless it is a device."""

    def __init__(self, mount: Path, below: Path | None, reserve: Bytes) -> None:
        self._mount = mount
        self._below = below
        self._reserve = reserve
        self.groups = Path()
        """Where the kernel shows the quota groups."""

    def prepare(self) -> None:
        with btrfs.directory(self._mount) as pool:
            self.groups = Path("/sys/fs/btrfs") / btrfs.file_system_id(pool) / "qgroups"
            enable_quota(pool, self.groups)
            with tolerated(errno.EEXIST):
                btrfs.create_group(pool, btrfs.ALL_DISKS)
            btrfs.limit_group(pool, btrfs.ALL_DISKS, self._for_disks())

    def used(self, group: int) -> Bytes:
        try:
            return Bytes(int((self.groups / btrfs.group_name(group) / "referenced").read_text()))
        except FileNotFoundError:
            return Bytes(0)

    def usage(self) -> PoolUsage:
        """Of what disks may take together; the reserve is not counted."""
        total = self._for_disks()
        free = max(0, min(total - self.used(btrfs.ALL_DISKS), _space(self._mount).free))
        return PoolUsage(total=total, used=Bytes(total - free), free=Bytes(free))

    def check(self) -> None:
        """Raises Exhausted: there is none for another disk."""
        usage = self.usage()
        if usage.free < ROOM_FOR_A_DISK:
            usage = self._usage_after_commit()
        if usage.free < ROOM_FOR_A_DISK:
            raise Exhausted(f"The disk pool is full: {mib(usage.used)} are in use. {ADVICE}")
        if self._below is not None and (free := _space(self._below).free) < self._reserve:
            raise Exhausted(
                f"The file system under the disk pool ({self._below}) is full: {mib(free)} are free."
            )

    def is_simple(self) -> bool:
        """Whether quotas count what is shared with a snapshot where it was written, alone."""
        try:
            return (self.groups / "mode").read_text().strip() == "squota"
        except FileNotFoundError:  # before Linux 6.7 there was but one mode
            return False

    def _for_disks(self) -> Bytes:
        """What all disks may hold together."""
        total = _space(self._mount).total
        return Bytes(max(0, total - max(self._reserve, int(total * _RESERVED_PART))))

    def _usage_after_commit(self) -> PoolUsage:
        """What deleted disks held becomes free only with a commit; a pool that looks full deserves one."""
        with btrfs.directory(self._mount) as pool:
            btrfs.sync(pool)
        return self.usage()


def mib(size: int) -> str:
    return f"{size / 1024 / 1024:.1f} MiB"


def _space(path: Path) -> PoolUsage:
    """Space of the whole file system.

    Not by f_bavail: btrfs makes it 0 by a guess about metadata, also when much is free.
    """
    facts = os.statvfs(path)
    total, free = facts.f_blocks * facts.f_frsize, facts.f_bfree * facts.f_frsize
    return PoolUsage(total=Bytes(total), used=Bytes(total - free), free=Bytes(free))
