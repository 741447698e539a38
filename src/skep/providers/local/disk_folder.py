"""The subvolumes that are a pool's disks: where they are, what is recorded of them, and how they go.

A disk is made under a hidden name, completed, and renamed: a crash leaves nothing that looks like a disk.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import structlog

from skep.model.errors import Exhausted, HostFailure, InvalidInput, NotFound, SkepError
from skep.model.ids import DiskId
from skep.providers.local import btrfs
from skep.providers.local.disk_records import DiskRecord, read_record
from skep.providers.local.pool_room import ADVICE
from skep.providers.local.quota_groups import free_group, remove_group

log = structlog.get_logger()

_HIDDEN = "."


class DiskFolder:
    def __init__(self, path: Path) -> None:
        self.at = path
        self._groups: dict[DiskId, int] = {}

    def prepare(self, groups: Path) -> set[DiskId]:
        """Nothing is under way: what is hidden goes, and quota groups of no disk.  Answers who is there."""
        self.at.mkdir(mode=0o700, exist_ok=True)
        for entry in list(self.at.iterdir()):
            if entry.name.startswith(_HIDDEN):
                self._destroy_left(entry)
        self._sweep_groups(groups)
        return set(self.disks())

    def disks(self) -> Iterator[DiskId]:
        return (DiskId(entry.name) for entry in os.scandir(self.at) if entry.name[0] != _HIDDEN)

    def path(self, disk: DiskId) -> Path:
        """Raises InvalidInput: that is no id."""
        if not disk or "/" in disk or disk.startswith(_HIDDEN):
            raise InvalidInput(f"{disk!r} is not the id of a disk.")
        return self.at / disk

    def record(self, disk: DiskId) -> DiskRecord:
        """Raises NotFound."""
        record = read_record(self.path(disk))
        if record is None:
            raise NotFound(f"There is no disk {disk} on this host.")
        return record

    def group(self, disk: DiskId) -> int:
        """Its quota group.  Raises FileNotFoundError."""
        if disk not in self._groups:
            self._groups[disk] = _group(self.path(disk))
        return self._groups[disk]

    def changed(self, disk: DiskId) -> None:
        """It is another subvolume now, or none."""
        self._groups.pop(disk, None)

    def hidden(self, name: str) -> Path:
        """A place that is free, and will be again when the pool is entered the next time."""
        hidden = self.at / f"{_HIDDEN}{name}"
        self.destroy(hidden)
        return hidden

    def destroy(self, path: Path) -> None:
        """Delete the subvolume, all subvolumes in it, and its quota group.  Absent is success.

        The limit is lifted first: deleting, too, needs a little room in a full group.
        """
        with contextlib.suppress(FileNotFoundError), btrfs.directory(path) as fd:
            subvolume = btrfs.subvolume_id(fd)
        if not path.exists():
            return
        group = btrfs.group_of(subvolume)
        with explained(DiskId(path.name)), btrfs.directory(self.at) as disks:
            with contextlib.suppress(FileNotFoundError):
                btrfs.limit_group(disks, group, None)
            free_group(disks, btrfs.destroy_subvolume(disks, subvolume), group)

    def _destroy_left(self, entry: Path) -> None:
        """What one tenant's disk left must not keep the pool from all others."""
        try:
            self.destroy(entry)
        except (SkepError, OSError) as error:
            log.warning("pool.remains_not_deleted", path=str(entry), error=str(error))

    def _sweep_groups(self, groups: Path) -> None:
        """Delete the quota groups whose disk is gone; an empty group is never in use."""
        used = {_group(entry) for entry in self.at.iterdir()}
        with btrfs.directory(self.at) as disks:
            there = {btrfs.group_of(int(entry.name[2:])) for entry in groups.glob("1_*")}
            for group in there - used:
                remove_group(disks, group)


def _group(path: Path) -> int:
    with btrfs.directory(path) as fd:
        return btrfs.group_of(btrfs.subvolume_id(fd))


@contextlib.contextmanager
def explained(disk: DiskId) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Exhausted(f"The disk pool is full. {ADVICE}") from error
        raise HostFailure(f"btrfs refused a change of disk {disk}: {error.strerror}.") from error
