"""The log of one container in conmon's k8s-file format, with rotation.

A record is ``<RFC 3339 time> <stdout|stderr> <P|F> <text>`` and a newline; `P` says the line goes on in the
stream's next record.  `log` is written to, `log.1` is older, and so on.
Format: https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Literal

from skep.model.errors import InvalidInput
from skep.model.host import LogLine

_BLOCK = 64 * 1024
_LONGEST_LINE = 256 * 1024
_POLL = 0.15


class ContainerLog:
    """At most `keep` files of about `limit` bytes each at `path`, `path`.1, …"""

    def __init__(self, path: Path, *, limit: int = 10 * 1024 * 1024, keep: int = 3) -> None:
        self.path = path
        self._limit = limit
        self._keep = keep

    def rotate_if_large(self, reopen: Callable[[], None]) -> bool:
        """Move the files up by one when the newest is full; `reopen` tells the writer to begin a new one.

        What is written in between lands in the moved file: nothing is lost.
        """
        try:
            if self.path.stat().st_size < self._limit:
                return False
        except FileNotFoundError:
            return False
        for number in range(self._keep - 1, 0, -1):
            if (older := self._numbered(number - 1)).exists():
                older.replace(self._numbered(number))
        reopen()
        return True

    async def lines(
        self,
        *,
        tail: int | None = None,
        since: str | None = None,
        more: Callable[[], bool] = lambda: False,
    ) -> AsyncIterator[LogLine]:
        """Oldest first.  At the end, go on waiting while `more()` says that more may come.

        `tail` is how many of the last lines to begin with; `since` an RFC 3339 time or seconds since 1970.

        Raises:
            InvalidInput: `since` is neither.
        """
        not_before = parse_time(since) if since else 0
        joiner = _Joiner()
        async for record in self._records(tail, more):
            line = joiner.add(record)
            if line and (not not_before or parse_time(line.time) >= not_before):
                yield line
        for line in joiner.rest():
            yield line

    def last(self, count: int) -> list[str]:
        """The text of the last lines, for messages."""
        joiner = _Joiner()
        with ExitStack() as opened:
            records = _complete(self._open(opened, count))
            lines = [line for record in records if (line := joiner.add(record))]
        return [line.text for line in [*lines, *joiner.rest()]][-count:]

    async def _records(self, tail: int | None, more: Callable[[], bool]) -> AsyncIterator[bytes]:
        with ExitStack() as opened:
            files = self._open(opened, tail)
            for file in files[:-1]:
                for record in _complete([file]):
                    yield record
                await asyncio.sleep(0)
            async for record in self._follow(opened, files[-1] if files else None, more):
                yield record

    async def _follow(
        self, opened: ExitStack, file: BinaryIO | None, more: Callable[[], bool]
    ) -> AsyncIterator[bytes]:
        """Polls: a look at a quiet file costs microseconds, and only followers pay it."""
        rest = b""
        while True:
            may_grow = more()
            while file and (block := file.read(_BLOCK)):
                *records, rest = (rest + block).split(b"\n")
                for record in records:
                    yield record
                await asyncio.sleep(0)
            if successor := self._successor(opened, file):
                if file:
                    *records, rest = (rest + file.read()).split(b"\n")
                    for record in records:
                        yield record
                file = successor
            elif not may_grow:
                return
            else:
                await asyncio.sleep(_POLL)

    def _successor(self, opened: ExitStack, file: BinaryIO | None) -> BinaryIO | None:
        """The file at our path when it is another one than the one we read."""
        try:
            candidate = self.path.open("rb")
        except FileNotFoundError:
            return None
        if file and os.path.sameopenfile(file.fileno(), candidate.fileno()):
            candidate.close()
            return None
        return opened.enter_context(candidate)

    def _open(self, opened: ExitStack, tail: int | None) -> list[BinaryIO]:
        """The files oldest first, each at the place to read on from."""
        files: list[BinaryIO] = []
        for number in range(self._keep):
            try:
                files.append(opened.enter_context(self._numbered(number).open("rb")))
            except FileNotFoundError:
                continue
        wanted = tail
        for file in files:
            if wanted is not None:
                wanted = _seek_back(file, wanted)
        return files[::-1]

    def _numbered(self, number: int) -> Path:
        return self.path if number == 0 else self.path.with_name(f"{self.path.name}.{number}")


class _Joiner:
    """Puts partial records together, per stream."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[str, bytearray]] = {}

    def add(self, record: bytes) -> LogLine | None:
        fields = record.split(b" ", 3)
        if len(fields) < 4 or fields[1] not in (b"stdout", b"stderr"):
            return None  # cut off by a full disk or a crash
        time, stream, tag, text = fields
        began, parts = self._open.setdefault(stream.decode(), (time.decode(errors="replace"), bytearray()))
        parts += text
        if tag == b"P" and len(parts) < _LONGEST_LINE:
            return None
        del self._open[stream.decode()]
        return _line(began, stream.decode(), parts)

    def rest(self) -> Iterator[LogLine]:
        for stream, (began, parts) in self._open.items():
            yield _line(began, stream, parts)
        self._open.clear()


def parse_time(text: str) -> int:
    """Nanoseconds since 1970 of an RFC 3339 time (nanoseconds allowed) or of seconds since 1970.

    Raises:
        InvalidInput: it is neither.
    """
    try:
        if text.replace(".", "", 1).isdecimal():
            return int(float(text) * 1_000_000_000)
        whole, fraction, zone = _split_time(text)
        seconds = int(datetime.fromisoformat(f"{whole}{zone}").timestamp())
        return seconds * 1_000_000_000 + int(fraction.ljust(9, "0")[:9] or 0)
    except ValueError as error:
        raise InvalidInput(f"{text[:40]!r} is not a time such as 2026-01-31T12:00:00Z.") from error


def _split_time(text: str) -> tuple[str, str, str]:
    whole, rest = text[:19], text[19:]
    digits = rest[1:] if rest.startswith(".") else ""
    fraction = digits[: len(digits) - len(digits.lstrip("0123456789"))]
    zone = rest[len(fraction) + 1 :] if fraction else rest
    return whole, fraction, zone or "+00:00"


def _line(time: str, stream: str, text: bytes | bytearray) -> LogLine:
    name: Literal["stdout", "stderr"] = "stderr" if stream == "stderr" else "stdout"
    return LogLine(time=time, stream=name, text=text.decode(errors="replace").removesuffix("\r"))


def _complete(files: list[BinaryIO]) -> Iterator[bytes]:
    for file in files:
        for record in file:
            yield record.removesuffix(b"\n")


def _seek_back(file: BinaryIO, wanted: int) -> int:
    """Place the file at its `wanted`-last line, reading only that much; answer how many it lacks."""
    position, carried = file.seek(0, os.SEEK_END), b""
    while position > 0:
        size = min(_BLOCK, position)
        position -= size
        file.seek(position)
        block = file.read(size) + carried
        carried, *records = block.split(b"\n")
        end = position + len(block)
        for record in reversed(records):
            start = end - len(record)
            wanted -= _ends_line(record)
            if wanted < 0:
                file.seek(end if not record else end + 1)
                return 0
            end = start - 1
    wanted -= _ends_line(carried)
    file.seek(len(carried) + 1 if wanted < 0 else 0)
    return max(0, wanted)


def _ends_line(record: bytes) -> bool:
    return record.split(b" ", 3)[2:3] == [b"F"]
