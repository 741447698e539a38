"""The disks of one host: subvolumes of a btrfs pool, each with a quota.

Satisfies `DiskPool` of control.  The pool is a device, or a sparse file behind a loop device that grows
when it is asked to be larger; it stays mounted when skep ends, because containers live on.

What a disk is (kind and size) is an extended attribute of its subvolume that processes in containers can
neither read nor change (`trusted.`), so it appears, moves and vanishes with the disk.  A disk is made under
a hidden name, completed, and renamed: a crash leaves nothing that looks like a disk.
"""

import asyncio
import contextlib
import errno
import itertools
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import structlog

from skep.model.errors import Conflict, Exhausted, HostFailure, InvalidInput, NotFound, SkepError, Stale
from skep.model.host import DiskSpec, DiskUsage, PoolUsage
from skep.model.ids import Bytes, DiskId, SnapshotId
from skep.providers.local import btrfs
from skep.providers.local.disk_marks import SentMarks
from skep.providers.local.disk_records import DiskRecord, check_equal, read_record, write_record
from skep.providers.local.disk_tars import look, pack, unpack, unpack_changes
from skep.providers.local.kept_snapshots import Kept, SnapshotFolder
from skep.providers.local.pool_device import attach_pool, detach_pool, is_mounted
from skep.providers.local.quota_groups import enable_quota, free_group, limit_new, remove_group, tolerated
from skep.streams.sealing import sealed, unsealed

log = structlog.get_logger()

_HIDDEN = "."
RESERVE = Bytes(64 * 1024 * 1024)
"""What all disks together leave free, so that btrfs always has room for its metadata (or 3 %, if more).

Without it, data may take the whole pool, and then nothing can be made or sometimes even deleted.
"""
_RESERVED_PART = 0.03
_ROOM_FOR_A_DISK = 1024 * 1024
_ADVICE = "Delete disks or enlarge the pool."


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
        self._reserve = reserve
        self._disks = mount / "disks"
        self._kept = SnapshotFolder(mount / "snapshots")
        self._marks = SentMarks(root / "sent")
        self._confined = root / "confined"
        self._groups = Path()
        self._subvolumes: dict[DiskId, int] = {}
        self._arriving: dict[DiskId, object] = {}
        """What arrives for a disk; the youngest, if several do."""
        self._numbers = itertools.count()

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
        path = self._path(disk)
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

    async def export(self, disk: DiskId, since: str = "") -> AsyncIterator[bytes]:
        self._record(disk)
        state = await asyncio.to_thread(self._marks.begin, disk, since)
        try:
            async for block in self._sent(disk, state, since):
                yield block
        finally:
            state.unlink(missing_ok=True)

    async def _sent(self, disk: DiskId, state: Path, since: str) -> AsyncIterator[bytes]:
        began = time.time()
        hidden = await asyncio.to_thread(self._freeze, disk)

        def note(seal: str) -> None:
            if not since:
                self._marks.keep(disk, seal, state, began)

        try:
            async with contextlib.aclosing(pack(hidden, state)) as content:
                async for block in sealed(content, note):
                    yield block
        finally:
            await asyncio.shield(asyncio.to_thread(self._destroy, hidden))

    async def receive(self, disk: DiskId, stream: AsyncIterator[bytes], onto: str = "") -> None:
        if onto:
            await self._change(disk, stream, onto)
        else:
            await self._fill(disk, stream)

    async def _fill(self, disk: DiskId, stream: AsyncIterator[bytes]) -> None:
        hidden = await asyncio.to_thread(self._vessel, disk)
        still, seals = self._begin(disk), list[str]()
        try:
            await unpack(unsealed(stream, seals.append), hidden)
            still()
            await asyncio.to_thread(self._replace, disk, hidden, seals[0])
        finally:
            await asyncio.shield(asyncio.to_thread(self._destroy, hidden))

    async def _change(self, disk: DiskId, stream: AsyncIterator[bytes], onto: str) -> None:
        """In place: what it shares with a second disk would count twice where quotas are simple.

        Until all has arrived it knows of no copy: nobody sends changes to it then.
        """
        await asyncio.to_thread(self._note, disk, onto, "")
        still, seals = self._begin(disk), list[str]()
        await unpack_changes(unsealed(stream, seals.append), self._path(disk), self._confined)
        still()
        await asyncio.to_thread(self._note, disk, "", seals[0])

    def _begin(self, disk: DiskId) -> Callable[[], None]:
        """Answers what raises Stale once somebody else has begun to send to the disk."""
        mine = self._arriving[disk] = object()

        def still() -> None:
            if self._arriving.get(disk) is not mine:
                raise Stale(f"Disk {disk} is received by somebody else, who began later.")

        return still

    async def fingerprint(self, disk: DiskId) -> str:
        return await look(await self.path(disk))

    async def usage(self) -> PoolUsage:
        """Of what disks may take together; the reserve is not counted."""
        return self._usage_of_pool()

    def _prepare(self) -> None:
        with btrfs.directory(self._mount) as pool:
            self._groups = Path("/sys/fs/btrfs") / btrfs.file_system_id(pool) / "qgroups"
            enable_quota(pool, self._groups)
            with tolerated(errno.EEXIST):
                btrfs.create_group(pool, btrfs.ALL_DISKS)
            btrfs.limit_group(pool, btrfs.ALL_DISKS, self._for_disks())
        self._disks.mkdir(mode=0o700, exist_ok=True)
        self._kept.path.mkdir(mode=0o700, exist_ok=True)
        self._confined.mkdir(mode=0o700, exist_ok=True)
        for entry in list(self._disks.iterdir()):
            if entry.name.startswith(_HIDDEN):
                self._destroy_left(entry)
        self._sweep_groups()
        self._marks.prepare(self._subvolumes)

    def _destroy_left(self, entry: Path) -> None:
        """What one tenant's disk left must not keep the pool from all others."""
        try:
            self._destroy(entry)
        except (SkepError, OSError) as error:
            log.warning("pool.remains_not_deleted", path=str(entry), error=str(error))

    def _sweep_groups(self) -> None:
        """Delete the quota groups whose disk is gone; an empty group is never in use."""
        with btrfs.directory(self._disks) as disks:
            there = {int(entry.name[2:]) for entry in self._groups.glob("1_*")}
            for subvolume in there - self._subvolume_ids():
                remove_group(disks, btrfs.group_of(subvolume))

    def _subvolume_ids(self) -> set[int]:
        for entry in self._disks.iterdir():
            with btrfs.directory(entry) as fd:
                self._subvolumes[DiskId(entry.name)] = btrfs.subvolume_id(fd)
        return set(self._subvolumes.values())

    def _create(self, disk: DiskSpec) -> None:
        record = DiskRecord(size=disk.size, kind=disk.kind)
        path = self._path(disk.id)
        if (there := read_record(path)) is not None:
            check_equal(disk.id, there, record)
            return
        self._check_room()
        hidden = self._disks / f"{_HIDDEN}new-{disk.id}"
        self._destroy(hidden)
        with _explained(disk.id), btrfs.directory(self._disks) as disks:
            btrfs.create_subvolume(disks, hidden.name)
            with btrfs.directory(hidden) as fd:
                limit_new(fd, disk.size)
                write_record(fd, record)
            hidden.rename(path)

    def _resize(self, disk: DiskId, size: Bytes) -> None:
        path = self._path(disk)
        record = self._record(disk)
        wanted = msgspec.structs.replace(record, size=size)
        with _explained(disk), btrfs.directory(path) as fd:
            group = btrfs.group_of(btrfs.subvolume_id(fd))
            if size < record.size:
                btrfs.sync(fd)
                self._check_fits(disk, Bytes(self._used(group) + record.inherited), size)
                write_record(fd, wanted)
                btrfs.limit_group(fd, group, _limit(wanted))
            else:  # The limit first: a full disk has no room even for its record.
                btrfs.limit_group(fd, group, _limit(wanted))
                write_record(fd, wanted)

    def _snapshot(self, disk: DiskId, snapshot: SnapshotId) -> None:
        if self._kept.find(snapshot) is not None:
            return
        record = self._record(disk)
        self._check_room()
        with _explained(disk), btrfs.directory(self._path(disk)) as fd:
            btrfs.sync(fd)
            held = self._used(btrfs.group_of(btrfs.subvolume_id(fd))) + record.inherited
            self._kept.make(fd, Kept(snapshot=snapshot, disk=disk, held=Bytes(held)))

    def _restore(self, disk: DiskId, snapshot: SnapshotId) -> None:
        """A second disk is made of the snapshot, and changes places with the first one."""
        kept = self._kept.find(snapshot)
        if kept is None:
            raise NotFound(f"There is no snapshot {snapshot} on this host.")
        record = self._record(disk)
        inherited = kept.held if self._simple() else Bytes(0)
        wanted = msgspec.structs.replace(record, inherited=inherited, arrived="")
        hidden = self._disks / f"{_HIDDEN}back-{disk}"
        self._destroy(hidden)
        with _explained(disk), btrfs.directory(self._disks) as disks:
            self._kept.copy(kept, disks, hidden.name)
            with btrfs.directory(hidden) as fd:
                limit_new(fd, _limit(wanted))
                write_record(fd, wanted)
            btrfs.exchange(hidden, self._path(disk))
        self._marks.forget(disk)
        self._subvolumes.pop(disk, None)
        self._destroy(hidden)

    def _freeze(self, disk: DiskId) -> Path:
        """What the disk holds now, for as long as it is read; swept when the pool is entered again."""
        self._record(disk)
        self._check_room()
        hidden = self._disks / f"{_HIDDEN}out-{disk}-{next(self._numbers)}"
        self._destroy(hidden)
        with _explained(disk), btrfs.directory(self._disks) as disks, btrfs.directory(self._path(disk)) as fd:
            btrfs.sync(fd)
            btrfs.snapshot_subvolume(fd, disks, hidden.name, read_only=True)
        return hidden

    def _vessel(self, disk: DiskId) -> Path:
        """As large as the disk, and empty."""
        record = self._record(disk)
        self._check_room()
        hidden = self._disks / f"{_HIDDEN}in-{disk}-{next(self._numbers)}"
        self._destroy(hidden)
        with _explained(disk), btrfs.directory(self._disks) as disks:
            btrfs.create_subvolume(disks, hidden.name)
            with btrfs.directory(hidden) as fd:
                limit_new(fd, record.size)
        return hidden

    def _note(self, disk: DiskId, was: str, arrived: str) -> None:
        """Raises Conflict: it is not the copy `was` that arrived last."""
        record = self._record(disk)
        if record.arrived != was:
            raise Conflict(f"Something else arrived at disk {disk} last.")
        with _explained(disk), btrfs.directory(self._path(disk)) as fd:
            write_record(fd, msgspec.structs.replace(record, arrived=arrived))
            btrfs.sync(fd)
        self._marks.forget(disk)

    def _replace(self, disk: DiskId, hidden: Path, seal: str) -> None:
        """The disk may have been resized meanwhile."""
        record = msgspec.structs.replace(self._record(disk), inherited=Bytes(0), arrived=seal)
        with _explained(disk):
            with btrfs.directory(hidden) as fd:
                btrfs.limit_group(fd, btrfs.group_of(btrfs.subvolume_id(fd)), record.size)
                write_record(fd, record)
                btrfs.sync(fd)
            btrfs.exchange(hidden, self._path(disk))
        self._marks.forget(disk)
        self._subvolumes.pop(disk, None)

    def _delete_snapshot(self, snapshot: SnapshotId) -> None:
        if (kept := self._kept.find(snapshot)) is not None:
            self._destroy(self._kept.path / kept.name)

    def _simple(self) -> bool:
        try:
            return (self._groups / "mode").read_text().strip() == "squota"
        except FileNotFoundError:  # before Linux 6.7 there was but one mode
            return False

    def _delete(self, disk: DiskId) -> None:
        for snapshot, of in self._kept.disks().items():
            if of == disk:
                self._delete_snapshot(snapshot)
        self._marks.forget(disk)
        hidden = self._disks / f"{_HIDDEN}gone-{disk}"
        self._destroy(hidden)
        self._subvolumes.pop(disk, None)
        try:
            self._path(disk).rename(hidden)
        except FileNotFoundError:
            return
        except OSError:  # A full pool has room to delete, but none to rename.
            hidden = self._path(disk)
        self._destroy(hidden)

    def _destroy(self, path: Path) -> None:
        """Delete the subvolume, all subvolumes in it, and its quota group.  Absent is success.

        The limit is lifted first: deleting, too, needs a little room in a full group.
        """
        with contextlib.suppress(FileNotFoundError), btrfs.directory(path) as fd:
            subvolume = btrfs.subvolume_id(fd)
        if not path.exists():
            return
        group = btrfs.group_of(subvolume)
        with _explained(DiskId(path.name)), btrfs.directory(self._disks) as disks:
            with contextlib.suppress(FileNotFoundError):
                btrfs.limit_group(disks, group, None)
            free_group(disks, btrfs.destroy_subvolume(disks, subvolume), group)

    def _list(self) -> dict[DiskId, DiskUsage]:
        disks = (DiskId(entry.name) for entry in os.scandir(self._disks) if entry.name[0] != _HIDDEN)
        found = ((disk, self._usage(disk)) for disk in disks)
        return {disk: usage for disk, usage in found if usage is not None}

    def _usage(self, disk: DiskId) -> DiskUsage | None:
        record = read_record(self._path(disk))
        if record is None:
            return None
        if disk not in self._subvolumes:
            with btrfs.directory(self._path(disk)) as fd:
                self._subvolumes[disk] = btrfs.subvolume_id(fd)
        used = self._used(btrfs.group_of(self._subvolumes[disk])) + record.inherited
        return DiskUsage(size=record.size, used=Bytes(used), kind=record.kind)

    def _used(self, group: int) -> Bytes:
        try:
            return Bytes(int((self._groups / btrfs.group_name(group) / "referenced").read_text()))
        except FileNotFoundError:
            return Bytes(0)

    def _record(self, disk: DiskId) -> DiskRecord:
        record = read_record(self._path(disk))
        if record is None:
            raise NotFound(f"There is no disk {disk} on this host.")
        return record

    def _path(self, disk: DiskId) -> Path:
        if not disk or "/" in disk or disk.startswith(_HIDDEN):
            raise InvalidInput(f"{disk!r} is not the id of a disk.")
        return self._disks / disk

    def _for_disks(self) -> Bytes:
        """What all disks may hold together."""
        total = _space(self._mount).total
        return Bytes(max(0, total - max(self._reserve, int(total * _RESERVED_PART))))

    def _usage_of_pool(self) -> PoolUsage:
        total = self._for_disks()
        free = max(0, min(total - self._used(btrfs.ALL_DISKS), _space(self._mount).free))
        return PoolUsage(total=total, used=Bytes(total - free), free=Bytes(free))

    def _check_room(self) -> None:
        usage = self._usage_of_pool()
        if usage.free < _ROOM_FOR_A_DISK:
            usage = self._usage_after_commit()
        if usage.free < _ROOM_FOR_A_DISK:
            raise Exhausted(f"The disk pool is full: {_mib(usage.used)} are in use. {_ADVICE}")
        if self._device is None and (below := _space(self._root).free) < self._reserve:
            raise Exhausted(
                f"The file system under the disk pool ({self._root}) is full: {_mib(below)} are free."
            )

    def _usage_after_commit(self) -> PoolUsage:
        """What deleted disks held becomes free only with a commit; a pool that looks full deserves one."""
        with btrfs.directory(self._mount) as pool:
            btrfs.sync(pool)
        return self._usage_of_pool()

    def _check_fits(self, disk: DiskId, used: Bytes, size: Bytes) -> None:
        if size < used:
            raise InvalidInput(f"Disk {disk} holds {_mib(used)} and cannot become {_mib(size)} large.")


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
    return Bytes(max(_ROOM_FOR_A_DISK, record.size - record.inherited))


def _space(path: Path) -> PoolUsage:
    """Space of the whole file system.

    Not by f_bavail: btrfs makes it 0 by a guess about metadata, also when much is free.
    """
    facts = os.statvfs(path)
    total, free = facts.f_blocks * facts.f_frsize, facts.f_bfree * facts.f_frsize
    return PoolUsage(total=Bytes(total), used=Bytes(total - free), free=Bytes(free))


@contextlib.contextmanager
def _explained(disk: DiskId) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Exhausted(f"The disk pool is full. {_ADVICE}") from error
        raise HostFailure(f"btrfs refused a change of disk {disk}: {error.strerror}.") from error


def _mib(size: int) -> str:
    return f"{size / 1024 / 1024:.1f} MiB"
