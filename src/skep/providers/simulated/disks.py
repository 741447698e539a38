"""Disks as numbers: how large each is, and how full.  Satisfies `DiskPool` of control.

What is in them is known only of what was received.
"""

import errno
import hashlib
import os
import tarfile
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import msgspec

from skep.model.errors import Conflict, Exhausted, InvalidInput, NotFound
from skep.model.host import DiskSpec, DiskUsage, PoolUsage
from skep.model.ids import Bytes, DiskId, SnapshotId
from skep.streams.sealing import sealed, unsealed

_METADATA = 1024 * 1024
"""Bytes that the pool must have free for another disk, as the local one."""
_EMPTY = bytes(2 * tarfile.BLOCKSIZE)
"""A tar with nothing in it."""

LARGE = Bytes(1024**4)


class SimulatedPool:
    """A pool of `size` bytes; as the local one it may promise more than it has.

    The paths of disks lie below `root` and exist in name only.
    """

    def __init__(self, *, size: Bytes = LARGE, root: Path = Path("/simulated/disks")) -> None:
        self._size = size
        self._root = root
        self._disks: dict[DiskId, DiskUsage] = {}
        self._snapshots: dict[SnapshotId, tuple[DiskId, Bytes, bytes]] = {}
        self._received: dict[DiskId, bytes] = {}
        self._sent: dict[DiskId, str] = {}
        self._arrived: dict[DiskId, str] = {}

    async def create(self, disk: DiskSpec) -> None:
        there = self._disks.get(disk.id)
        if there is not None and (there.size, there.kind) != (disk.size, disk.kind):
            raise Conflict(f"Disk {disk.id} exists as a {there.kind} disk of {there.size} bytes.")
        if there is not None:
            return
        if self._free() < _METADATA:
            raise Exhausted("The disk pool is full. Delete disks or enlarge the pool.")
        self._disks[disk.id] = DiskUsage(size=disk.size, used=Bytes(0), kind=disk.kind)

    async def resize(self, disk: DiskId, size: Bytes) -> None:
        usage = self._find(disk)
        if size < usage.used:
            raise InvalidInput(f"Disk {disk} holds {usage.used} bytes and cannot become {size} bytes large.")
        self._disks[disk] = msgspec.structs.replace(usage, size=size)

    async def path(self, disk: DiskId) -> Path:
        self._find(disk)
        return self._root / disk

    async def delete(self, disk: DiskId) -> None:
        self._disks.pop(disk, None)
        self._received.pop(disk, None)
        self._snapshots = {name: kept for name, kept in self._snapshots.items() if kept[0] != disk}

    async def list(self) -> dict[DiskId, DiskUsage]:
        return dict(self._disks)

    async def usage(self) -> PoolUsage:
        free = self._free()
        return PoolUsage(total=self._size, used=Bytes(self._size - free), free=Bytes(free))

    async def snapshot(self, disk: DiskId, snapshot: SnapshotId) -> None:
        usage = self._find(disk)
        self._snapshots.setdefault(snapshot, (disk, usage.used, self._received.get(disk, _EMPTY)))

    async def restore(self, disk: DiskId, snapshot: SnapshotId) -> None:
        usage = self._find(disk)
        if snapshot not in self._snapshots:
            raise NotFound(f"There is no snapshot {snapshot} on this host.")
        _, used, self._received[disk] = self._snapshots[snapshot]
        self._disks[disk] = msgspec.structs.replace(usage, used=used)
        self._sent.pop(disk, None)
        self._arrived.pop(disk, None)

    async def delete_snapshot(self, snapshot: SnapshotId) -> None:
        self._snapshots.pop(snapshot, None)

    async def snapshots(self) -> dict[SnapshotId, DiskId]:
        return {snapshot: disk for snapshot, (disk, *_) in self._snapshots.items()}

    async def export(self, disk: DiskId, since: str = "") -> AsyncIterator[bytes]:
        """What has changed is all of it."""
        self._find(disk)
        if since and self._sent.get(disk) != since:
            raise Conflict(f"What was sent of disk {disk} then is not known any more.")
        note = partial(self._sent.setdefault if since else self._sent.__setitem__, disk)
        async for block in sealed(_once(self._received.get(disk, _EMPTY)), note):
            yield block

    async def receive(self, disk: DiskId, stream: AsyncIterator[bytes], onto: str = "") -> None:
        usage = self._find(disk)
        if onto and self._arrived.get(disk) != onto:
            raise Conflict(f"Something else arrived at disk {disk} last.")
        note = partial(self._arrived.__setitem__, disk)
        content = b"".join([block async for block in unsealed(stream, note)])
        if len(content) > usage.size or len(content) > self._free():
            raise Exhausted("What arrives does not fit on the disk: make it larger, and send it again.")
        self._disks[disk] = msgspec.structs.replace(usage, used=Bytes(len(content)))
        self._received[disk] = content
        self._sent.pop(disk, None)

    async def fingerprint(self, disk: DiskId) -> str:
        self._find(disk)
        return hashlib.sha256(self._received.get(disk, _EMPTY)).hexdigest()

    def fill(self, disk: DiskId, used: Bytes) -> None:
        """Let the disk hold so many bytes, as if a container had written them.

        Raises:
            OSError: EDQUOT, the disk is smaller; ENOSPC, the pool is full.
        """
        usage = self._find(disk)
        if used > usage.size:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        if used - usage.used > self._free():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._disks[disk] = msgspec.structs.replace(usage, used=used)

    def _find(self, disk: DiskId) -> DiskUsage:
        if disk not in self._disks:
            raise NotFound(f"There is no disk {disk} on this host.")
        return self._disks[disk]

    def _free(self) -> int:
        return max(0, self._size - sum(usage.used for usage in self._disks.values()))


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
