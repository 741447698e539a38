"""What a disk holds, told by one digest: equal for disks that hold the same, whatever pool they are in.

Made of the tar that a pool sends while it passes through, member by member in the order in which it comes,
which is that of the names: name, kind, owner, mode, time, attributes, and the content with holes as zeros.
"""

import asyncio
import hashlib
import queue
import tarfile
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import IO, cast

from skep.model.errors import InvalidInput
from skep.streams.sealing import LENGTH

_BLOCK = 1024 * 1024
_WAITING = 8
"""Blocks that may wait for being looked at: whoever sends is held up, not the memory filled."""
_ATTRIBUTES = ("SCHILY.xattr.", "SCHILY.acl.")


class Contents:
    """Of one disk on its way; `source` is what `DiskPool.export` sends."""

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self._source = source
        self._pipe = _Pipe()
        self._reading: asyncio.Future[str] | None = None
        self.seal = ""
        """What the stream ended with."""

    async def stream(self) -> AsyncIterator[bytes]:
        """What the source sends, as it is."""
        thread = ThreadPoolExecutor(1)  # its own: those that all share may be waiting for this one
        self._reading = asyncio.get_running_loop().run_in_executor(thread, _read, self._pipe)
        rest = b""
        try:
            async for block in self._source:
                rest += block
                content, rest = rest[:-LENGTH], rest[-LENGTH:]
                if content:
                    await asyncio.to_thread(self._pipe.put, content)
                yield block
            self.seal = rest.decode(errors="replace")
        finally:
            await asyncio.shield(asyncio.to_thread(self._pipe.put, b""))
            thread.shutdown(wait=False)

    async def digest(self) -> str:
        """Once all has passed.  Raises InvalidInput: it is no tar."""
        if self._reading is None:
            raise ValueError("nothing has passed yet")
        return await self._reading


class _Pipe:
    """From the event loop to the thread that reads; an empty block is the end."""

    def __init__(self) -> None:
        self._blocks: queue.Queue[bytes] = queue.Queue(_WAITING)
        self._rest = b""
        self._ended = False

    def put(self, block: bytes) -> None:
        self._blocks.put(block)

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and not self._ended:
            block = self._blocks.get()
            self._ended = not block
            self._rest += block
        found, self._rest = self._rest[:size], self._rest[size:]
        return found

    def drain(self) -> None:
        """Nobody who puts is left waiting."""
        while not self._ended:
            self._ended = not self._blocks.get()


def _read(pipe: _Pipe) -> str:
    digest = hashlib.sha256()
    try:
        with tarfile.open(fileobj=cast(IO[bytes], pipe), mode="r|", bufsize=_BLOCK) as tar:
            for member in tar:
                digest.update(_told(member, tar))
                tar.members = []  # type: ignore[attr-defined]  # it would keep them all
    except tarfile.TarError as error:
        raise InvalidInput(f"What came of the disk is no tar: {error}.") from error
    finally:
        pipe.drain()
    return digest.hexdigest()


def _told(member: tarfile.TarInfo, tar: tarfile.TarFile) -> bytes:
    """A file with holes is one like any other; times are as they were written, to the nanosecond."""
    headers = member.pax_headers
    kept = sorted((key, value) for key, value in headers.items() if key.startswith(_ATTRIBUTES))
    kind = tarfile.REGTYPE if member.isreg() else member.type
    said = (member.name, kind, member.linkname, member.uid, member.gid, member.mode, member.devmajor)
    told = (*said, member.devminor, headers.get("mtime", str(int(member.mtime))), kept, _content(member, tar))
    return repr(told).encode(errors="surrogateescape")


def _content(member: tarfile.TarInfo, tar: tarfile.TarFile) -> str:
    file = tar.extractfile(member) if member.isreg() else None
    if file is None:
        return ""
    content = hashlib.sha256()
    while block := file.read(_BLOCK):
        content.update(block)
    return content.hexdigest()
