"""What the agent must remember of a container: on disk, so that neither a crash nor a reboot forgets it.

One directory per container holds `record.json`, its configs and its log.  A record appears before anything
is made and disappears after everything is gone.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import structlog

from skep.model.host import ContainerSpec
from skep.model.ids import ContainerId
from skep.model.restarts import History

_log = structlog.get_logger(__name__)


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One container.  `wanted`: it was started and nobody asked it to stop.

    `started_at` and `finished_at` are seconds since 1970, for people; `started_boot` is CLOCK_BOOTTIME of the
    boot `boot`, for decisions: it never jumps.
    """

    spec: ContainerSpec
    wanted: bool = True
    boot: str = ""
    started_boot: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None
    exit_code: int | None = None
    oom_killed: bool = False
    error: str = ""
    restarts: int = 0
    history: History = History()


class Records:
    """The records of one host, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def directory(self, container: ContainerId) -> Path:
        return self.folder / container

    def log(self, container: ContainerId) -> Path:
        return self.directory(container) / "log"

    def read_all(self) -> Iterator[Record]:
        """Every readable record; what cannot be read is named in the log."""
        if not self.folder.is_dir():
            return
        for directory in sorted(self.folder.iterdir()):
            try:
                yield _decoder.decode((directory / "record.json").read_bytes())
            except (OSError, msgspec.MsgspecError) as error:
                _log.warning("container.record-unreadable", container=directory.name, error=str(error))

    def write(self, record: Record) -> None:
        """Replace the record in one step.

        Nobody waits for the disk: after a power cut no container runs, and control starts anew those whose
        record got lost.
        """
        directory = self.directory(record.spec.id)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = directory / "record.json.new"
        temporary.write_bytes(_encoder.encode(record))
        temporary.replace(directory / "record.json")

    def delete(self, container: ContainerId) -> None:
        """Remove the record and all the directory holds; none is success."""
        shutil.rmtree(self.directory(container), ignore_errors=True)

    def left(self) -> set[str]:
        """Every container that has a directory."""
        return {entry.name for entry in self.folder.iterdir()} if self.folder.is_dir() else set()


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _to_text(value: Any) -> str:
    return str(value)


def _from_text(kind: type, value: Any) -> Any:
    """Paths and addresses, which msgspec leaves to us."""
    return kind(value)


_encoder = msgspec.json.Encoder(enc_hook=_to_text)
_decoder = msgspec.json.Decoder(Record, dec_hook=_from_text)
