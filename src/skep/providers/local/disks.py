"""The disks of one host: subvolumes of a btrfs pool, each with a quota.

Satisfies `DiskPool` of control.  The pool is a device, or a sparse file behind a loop device that grows
when it is asked to be larger; it stays mounted when skep ends, because containers live on.

What a disk is (kind and size) is an extended attribute of its subvolume that processes in containers can
neither read nor change (`trusted.`), so it appears, moves and vanishes with the disk.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from skep.model.errors import InvalidInput, NotFound
from skep.model.host import DiskSpec, DiskUsage, PoolUsage
from skep.model.ids import Bytes, DiskId, SnapshotId
from skep.providers.local import btrfs
from skep.providers.local.disk_folder import DiskFolder, explained
from skep.providers.local.disk_marks import SentMarks
from skep.providers.local.disk_records import DiskRecord, check_equal, read_record, write_record
from skep.providers.local.disk_tars import look
from skep.providers.local.disk_transfers import DiskTransfers
from skep.providers.local.kept_snapshots import Kept, SnapshotFolder
from skep.providers.local.pool_device import attach_pool, detach_pool, is_mounted
from skep.providers.local.pool_room import RESERVE, ROOM_FOR_A_DISK, PoolRoom, mib
from skep.providers.local.quota_groups import limit_new


class BtrfsPool:
    """The pool at `mount`; with no `device` it is ROOT/pool.img of `size` bytes (never shrunk).

    Use as an asynchronous context manager; may be entered while containers of an earlier life use it.
    """

    def __init__(
        self, *, root: Path, mount: Path, device: Path | None, size: Bytes, reserve: Bytes = RESERVE
    ) -> None:
        self._root = root
        self._mount = mount
        self._device = device
        self._size = size
        self._room = PoolRoom(mount, root if device is None else None, reserve)
        self._folder = DiskFolder(mount / "disks")
        self._kept = SnapshotFolder(mount / "snapshots")
        self._marks = SentMarks(root / "sent")
        self._confined = root / "confined"
        self._transfers = DiskTransfers(self._folder, self._room, self._marks, self._confined)

    async def __aenter__(self) -> Self:
        await attach_pool(self._root, self._mount, self._device, self._size)
        await asyncio.to_thread(self._prepare)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the pool mounted; `teardown` unmounts."""

    async def create(self, disk: DiskSpec) -> None:
        await asyncio.to_thread(self._create, disk)

    async def resize(self, disk: DiskId, size: Bytes) -> None:
        await asyncio.to_thread(self._resize, disk, size)

    async def path(self, disk: DiskId) -> Path:
        path = self._folder.path(disk)
        if not path.is_dir():
            raise NotFound(f"There is no disk {disk} on this host.")
        return path

    async def delete(self, disk: DiskId) -> None:
        await asyncio.to_thread(self._delete, disk)

    async def list(self) -> dict[DiskId, DiskUsage]:
        """Size and use; what was written within the last seconds and is still in memory is not counted."""
        return await asyncio.to_thread(self._list)

    async def snapshot(self, disk: DiskId, snapshot: SnapshotId) -> None:
        await asyncio.to_thread(self._snapshot, disk, snapshot)

    async def restore(self, disk: DiskId, snapshot: SnapshotId) -> None:
        await asyncio.to_thread(self._restore, disk, snapshot)

    async def delete_snapshot(self, snapshot: SnapshotId) -> None:
        await asyncio.to_thread(self._delete_snapshot, snapshot)

    async def snapshots(self) -> dict[SnapshotId, DiskId]:
        return await asyncio.to_thread(self._kept.disks)

    def export(self, disk: DiskId, since: str = "") -> AsyncIterator[bytes]:
        return self._transfers.export(disk, since)

    async def receive(self, disk: DiskId, stream: AsyncIterator[bytes], onto: str = "") -> None:
        await self._transfers.receive(disk, stream, onto)

    async def fingerprint(self, disk: DiskId) -> str:
        return await look(await self.path(disk))

    async def usage(self) -> PoolUsage:
        """Of what disks may take together; the reserve is not counted."""
        return self._room.usage()

    def _prepare(self) -> None:
        self._room.prepare()
        self._kept.path.mkdir(mode=0o700, exist_ok=True)
        self._confined.mkdir(mode=0o700, exist_ok=True)
        self._marks.prepare(self._folder.prepare(self._room.groups))

    def _create(self, disk: DiskSpec) -> None:
        record = DiskRecord(size=disk.size, kind=disk.kind)
        path = self._folder.path(disk.id)
        if (there := read_record(path)) is not None:
            check_equal(disk.id, there, record)
            return
        self._room.check()
        hidden = self._folder.hidden(f"new-{disk.id}")
        with explained(disk.id), btrfs.directory(self._folder.at) as disks:
            btrfs.create_subvolume(disks, hidden.name)
            with btrfs.directory(hidden) as fd:
                limit_new(fd, disk.size)
                write_record(fd, record)
            hidden.rename(path)

    def _resize(self, disk: DiskId, size: Bytes) -> None:
        path = self._folder.path(disk)
        record = self._folder.record(disk)
        wanted = msgspec.structs.replace(record, size=size)
        with explained(disk), btrfs.directory(path) as fd:
            group = btrfs.group_of(btrfs.subvolume_id(fd))
            if size < record.size:
                btrfs.sync(fd)
                _check_fits(disk, Bytes(self._room.used(group) + record.inherited), size)
                write_record(fd, wanted)
                btrfs.limit_group(fd, group, _limit(wanted))
            else:  # The limit first: a full disk has no room even for its record.
                btrfs.limit_group(fd, group, _limit(wanted))
                write_record(fd, wanted)

    def _snapshot(self, disk: DiskId, snapshot: SnapshotId) -> None:
        if self._kept.find(snapshot) is not None:
            return
        record = self._folder.record(disk)
        self._room.check()
        with explained(disk), btrfs.directory(self._folder.path(disk)) as fd:
            btrfs.sync(fd)
            held = self._room.used(btrfs.group_of(btrfs.subvolume_id(fd))) + record.inherited
            self._kept.make(fd, Kept(snapshot=snapshot, disk=disk, held=Bytes(held)))

    def _restore(self, disk: DiskId, snapshot: SnapshotId) -> None:
        """A second disk is made of the snapshot, and changes places with the first one."""
        kept = self._kept.find(snapshot)
        if kept is None:
            raise NotFound(f"There is no snapshot {snapshot} on this host.")
        record = self._folder.record(disk)
        inherited = kept.held if self._room.is_simple() else Bytes(0)
        wanted = msgspec.structs.replace(record, inherited=inherited, arrived="")
        hidden = self._folder.hidden(f"back-{disk}")
        with explained(disk), btrfs.directory(self._folder.at) as disks:
            self._kept.copy(kept, disks, hidden.name)
            with btrfs.directory(hidden) as fd:
                limit_new(fd, _limit(wanted))
                write_record(fd, wanted)
            btrfs.exchange(hidden, self._folder.path(disk))
        self._marks.forget(disk)
        self._folder.changed(disk)
        self._folder.destroy(hidden)

    def _delete_snapshot(self, snapshot: SnapshotId) -> None:
        if (kept := self._kept.find(snapshot)) is not None:
            self._folder.destroy(self._kept.path / kept.name)

    def _delete(self, disk: DiskId) -> None:
        for snapshot, of in self._kept.disks().items():
            if of == disk:
                self._delete_snapshot(snapshot)
        self._marks.forget(disk)
        hidden = self._folder.hidden(f"gone-{disk}")
        self._folder.changed(disk)
        try:
            self._folder.path(disk).rename(hidden)
        except FileNotFoundError:
            return
        except OSError:  # A full pool has room to delete, but none to rename.
            hidden = self._folder.path(disk)
        self._folder.destroy(hidden)

    def _list(self) -> dict[DiskId, DiskUsage]:
        found = ((disk, self._usage(disk)) for disk in self._folder.disks())
        return {disk: usage for disk, usage in found if usage is not None}

    def _usage(self, disk: DiskId) -> DiskUsage | None:
        record = read_record(self._folder.path(disk))
        if record is None:
            return None
        used = self._room.used(self._folder.group(disk)) + record.inherited
        return DiskUsage(size=record.size, used=Bytes(used), kind=record.kind)


async def teardown(root: Path, mount: Path, *, purge: bool = False) -> None:
    """Unmount the pool and detach its loop device; with `purge` delete the file too.  Absent is success.

    Raises:
        HostFailure: something still uses the pool.
    """
    await detach_pool(root, mount)
    if purge:
        (root / "pool.img").unlink(missing_ok=True)
        if mount.exists() and not is_mounted(mount):
            with contextlib.suppress(OSError):
                mount.rmdir()


def _limit(record: DiskRecord) -> Bytes:
    """What its quota group may hold, so that with what it inherited it is no larger than its size."""
    return Bytes(max(ROOM_FOR_A_DISK, record.size - record.inherited))


def _check_fits(disk: DiskId, used: Bytes, size: Bytes) -> None:
    if size < used:
        raise InvalidInput(f"Disk {disk} holds {mib(used)} and cannot become {mib(size)} large.")
