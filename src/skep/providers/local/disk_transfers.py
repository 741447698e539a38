"""Disks of a pool that are sent elsewhere, and those that arrive: whole, or what has changed since.

What is sent is what the disk held at one moment.  A disk that arrives whole is filled beside the one that is
there, and changes places with it; changes are made in place.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from skep.model.errors import Conflict, Stale
from skep.model.ids import Bytes, DiskId
from skep.providers.local import btrfs
from skep.providers.local.disk_folder import DiskFolder, explained
from skep.providers.local.disk_marks import SentMarks
from skep.providers.local.disk_records import write_record
from skep.providers.local.disk_tars import pack, unpack, unpack_changes
from skep.providers.local.pool_room import PoolRoom
from skep.providers.local.quota_groups import limit_new
from skep.streams.sealing import sealed, unsealed


class DiskTransfers:
    """`confined`: a folder in which nothing else is."""

    def __init__(self, folder: DiskFolder, room: PoolRoom, marks: SentMarks, confined: Path) -> None:
        self._folder = folder
        self._room = room
        self._marks = marks
        self._confined = confined
        self._arriving: dict[DiskId, object] = {}
        """What arrives for a disk; the youngest, if several do."""
        self._numbers = itertools.count()

    async def export(self, disk: DiskId, since: str) -> AsyncIterator[bytes]:
        self._folder.record(disk)
        state = await asyncio.to_thread(self._marks.begin, disk, since)
        try:
            async for block in self._sent(disk, state, since):
                yield block
        finally:
            state.unlink(missing_ok=True)

    async def receive(self, disk: DiskId, stream: AsyncIterator[bytes], onto: str) -> None:
        if onto:
            await self._change(disk, stream, onto)
        else:
            await self._fill(disk, stream)

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
            await asyncio.shield(asyncio.to_thread(self._folder.destroy, hidden))

    async def _fill(self, disk: DiskId, stream: AsyncIterator[bytes]) -> None:
        hidden = await asyncio.to_thread(self._vessel, disk)
        still, seals = self._begin(disk), list[str]()
        try:
            await unpack(unsealed(stream, seals.append), hidden)
            still()
            await asyncio.to_thread(self._replace, disk, hidden, seals[0])
        finally:
            await asyncio.shield(asyncio.to_thread(self._folder.destroy, hidden))

    async def _change(self, disk: DiskId, stream: AsyncIterator[bytes], onto: str) -> None:
        """In place: what it shares with a second disk would count twice where quotas are simple.

        Until all has arrived it knows of no copy: nobody sends changes to it then.
        """
        await asyncio.to_thread(self._note, disk, onto, "")
        still, seals = self._begin(disk), list[str]()
        await unpack_changes(unsealed(stream, seals.append), self._folder.path(disk), self._confined)
        still()
        await asyncio.to_thread(self._note, disk, "", seals[0])

    def _begin(self, disk: DiskId) -> Callable[[], None]:
        """Answers what raises Stale once somebody else has begun to send to the disk."""
        mine = self._arriving[disk] = object()

        def still() -> None:
            if self._arriving.get(disk) is not mine:
                raise Stale(f"Disk {disk} is received by somebody else, who began later.")

        return still

    def _freeze(self, disk: DiskId) -> Path:
        """What the disk holds now, for as long as it is read."""
        self._folder.record(disk)
        self._room.check()
        hidden = self._folder.hidden(f"out-{disk}-{next(self._numbers)}")
        with (
            explained(disk),
            btrfs.directory(self._folder.at) as disks,
            btrfs.directory(self._folder.path(disk)) as fd,
        ):
            btrfs.sync(fd)
            btrfs.snapshot_subvolume(fd, disks, hidden.name, read_only=True)
        return hidden

    def _vessel(self, disk: DiskId) -> Path:
        """As large as the disk, and empty."""
        record = self._folder.record(disk)
        self._room.check()
        hidden = self._folder.hidden(f"in-{disk}-{next(self._numbers)}")
        with explained(disk), btrfs.directory(self._folder.at) as disks:
            btrfs.create_subvolume(disks, hidden.name)
            with btrfs.directory(hidden) as fd:
                limit_new(fd, record.size)
        return hidden

    def _note(self, disk: DiskId, was: str, arrived: str) -> None:
        """Raises Conflict: it is not the copy `was` that arrived last."""
        record = self._folder.record(disk)
        if record.arrived != was:
            raise Conflict(f"Something else arrived at disk {disk} last.")
        with explained(disk), btrfs.directory(self._folder.path(disk)) as fd:
            write_record(fd, msgspec.structs.replace(record, arrived=arrived))
            btrfs.sync(fd)
        self._marks.forget(disk)

    def _replace(self, disk: DiskId, hidden: Path, seal: str) -> None:
        """The disk may have been resized meanwhile."""
        record = msgspec.structs.replace(self._folder.record(disk), inherited=Bytes(0), arrived=seal)
        with explained(disk):
            with btrfs.directory(hidden) as fd:
                btrfs.limit_group(fd, btrfs.group_of(btrfs.subvolume_id(fd)), record.size)
                write_record(fd, record)
                btrfs.sync(fd)
            btrfs.exchange(hidden, self._folder.path(disk))
        self._marks.forget(disk)
        self._folder.changed(disk)
