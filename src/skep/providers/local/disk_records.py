"""What a disk is, recorded at its subvolume, where no process in a container reads or changes it."""

import errno
import os
from pathlib import Path
from typing import Literal

import msgspec

from skep.model.errors import Conflict
from skep.model.ids import Bytes, DiskId

_RECORD = "trusted.skep.disk"


class DiskRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is recorded at the disk itself."""

    size: Bytes
    kind: Literal["system", "data"]
    inherited: Bytes = Bytes(0)
    """What a restored disk shares with its snapshot: simple quotas count it where it was written."""
    arrived: str = ""
    """The seal of what was received last."""


def check_equal(disk: DiskId, there: DiskRecord, wanted: DiskRecord) -> None:
    if (there.size, there.kind) != (wanted.size, wanted.kind):
        raise Conflict(
            f"Disk {disk} exists as a {there.kind} disk of {there.size / 2**20:g} MiB, "
            f"not as a {wanted.kind} disk of {wanted.size / 2**20:g} MiB."
        )


def read_record(path: Path) -> DiskRecord | None:
    try:
        return msgspec.json.decode(os.getxattr(path, _RECORD), type=DiskRecord)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODATA):
            return None
        raise


def write_record(fd: int, record: DiskRecord) -> None:
    os.setxattr(fd, _RECORD, msgspec.json.encode(record))
