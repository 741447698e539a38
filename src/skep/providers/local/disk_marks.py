"""What was sent of each disk, as tar wrote it down: so that later only what has changed since is sent.

One file per disk, named by the seal of what was sent.  A mark that is gone costs a whole copy, nothing else.
"""

import os
import shutil
import tempfile
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import structlog

from skep.model.errors import Conflict
from skep.model.ids import DiskId

log = structlog.get_logger()

_BETWEEN = "@"
_WRITING = ".writing-"
_COARSE = 0.02
"""Seconds by which times of files may lag behind the clock: a tick of the kernel."""


class SentMarks:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def prepare(self, disks: Collection[DiskId]) -> None:
        """Nothing is under way; what is of none of these disks goes."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for entry in self._folder.iterdir():
            if entry.name.partition(_BETWEEN)[0] not in disks:
                entry.unlink()

    def begin(self, disk: DiskId, since: str) -> Path:
        """A file for tar, which is the caller's to delete.  Raises Conflict: that mark is not here."""
        handle, name = tempfile.mkstemp(prefix=_WRITING, dir=self._folder)
        os.close(handle)
        file = Path(name)
        if since:
            try:
                shutil.copyfile(self._mark(disk, since), file)
            except FileNotFoundError:
                file.unlink()
                raise Conflict(f"What was sent of disk {disk} then is not known any more.") from None
        return file

    def keep(self, disk: DiskId, seal: str, written: Path, began: float) -> None:
        """What tar wrote becomes the disk's mark.  `began`: when the disk was as it was sent, since 1970."""
        try:
            _set_back(written, began)
            self.forget(disk)
            written.rename(self._mark(disk, seal))
        except OSError as error:
            log.warning("disk.mark_not_kept", disk=disk, error=str(error))

    def forget(self, disk: DiskId) -> None:
        for entry in self._folder.glob(f"{disk}{_BETWEEN}*"):
            with suppress(FileNotFoundError):
                entry.unlink()

    def _mark(self, disk: DiskId, seal: str) -> Path:
        if not seal.isalnum():
            raise Conflict(f"{seal!r} is not the seal of a disk.")
        return self._folder / f"{disk}{_BETWEEN}{seal}"


def _set_back(file: Path, began: float) -> None:
    """Tar takes for old what is older than its own start, which came after the snapshot that it read.

    Its start is the first two fields, seconds and nanoseconds, after the line that names the format
    (https://www.gnu.org/software/tar/manual/html_node/Snapshot-Files.html).
    """
    seconds, rest = divmod(began - _COARSE, 1)
    with file.open("rb") as written, file.with_suffix(".back").open("wb") as back:
        if not (line := written.readline()).startswith(b"GNU tar-"):
            raise OSError("it is not written as tar writes it")
        head, fields = written.read(40), 2
        for _ in range(fields):
            head = head.partition(b"\0")[2]
        back.write(line + b"%d\0%d\0" % (seconds, rest * 1e9) + head)
        shutil.copyfileobj(written, back)
    file.with_suffix(".back").replace(file)
