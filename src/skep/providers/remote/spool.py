"""The spool of a host elsewhere.  Satisfies `Spool` of control."""

from pathlib import Path

from skep.providers.remote.line import Line
from skep.providers.remote.streams import HostStreams


class RemoteSpool:
    def __init__(self, line: Line, streams: HostStreams) -> None:
        self._line = line
        self._streams = streams

    async def take(self, file: Path) -> None:
        await self._streams.upload(file)
        file.unlink(missing_ok=True)

    async def path(self, name: str) -> Path:
        """A path of that host."""
        return await self._line.ask("path", Path, name=name)

    async def read(self, name: str) -> bytes:
        return await self._line.ask("read", bytes, name=name)

    async def discard(self, name: str) -> None:
        await self._line.tell("discard", name=name)
