"""The snapshots of a btrfs pool: read-only subvolumes in one folder, whose names say all there is to know.

So a snapshot appears and vanishes at one moment, with what is known of it.
"""

import os
from pathlib import Path

import msgspec

from skep.model.errors import InvalidInput
from skep.model.ids import Bytes, DiskId, SnapshotId
from skep.providers.local import btrfs


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """`held`: what the disk held then, in bytes."""

    snapshot: SnapshotId
    disk: DiskId
    held: Bytes

    @property
    def name(self) -> str:
        return f"{self.snapshot}@{self.disk}@{self.held}"


class SnapshotFolder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def make(self, disk: int, kept: Kept) -> None:
        """Of the disk that is open as this file descriptor.  Raises OSError."""
        if not kept.snapshot or set(kept.snapshot) & set("@/."):
            raise InvalidInput(f"{kept.snapshot!r} is not the id of a snapshot.")
        with btrfs.directory(self.path) as folder:
            btrfs.snapshot_subvolume(disk, folder, kept.name, read_only=True)

    def copy(self, kept: Kept, parent: int, name: str) -> None:
        """A subvolume that may be written to.  Raises OSError."""
        with btrfs.directory(self.path / kept.name) as source:
            btrfs.snapshot_subvolume(source, parent, name, read_only=False)

    def find(self, snapshot: SnapshotId) -> Kept | None:
        return next((kept for kept in self._all() if kept.snapshot == snapshot), None)

    def disks(self) -> dict[SnapshotId, DiskId]:
        return {kept.snapshot: kept.disk for kept in self._all()}

    def _all(self) -> list[Kept]:
        found = (entry.name.split("@") for entry in os.scandir(self.path))
        return [
            Kept(snapshot=SnapshotId(parts[0]), disk=DiskId(parts[1]), held=Bytes(int(parts[2])))
            for parts in found
            if len(parts) == 3
        ]
