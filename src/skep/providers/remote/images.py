"""The images of a host elsewhere.  Satisfies `ImageStore` of control.

Paths are the host's own: what is to be loaded or built must be there.
"""

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from skep.model.ids import Bytes, Digest
from skep.model.images import BuildSpec, ImageInfo, RegistryCredentials
from skep.providers.remote.line import Line
from skep.providers.remote.streams import HostStreams

Progress = Callable[[str], None]


def _silent(line: str) -> None:
    """Progress nobody asked for."""


class RemoteImages:
    def __init__(self, line: Line, streams: HostStreams) -> None:
        self._line = line
        self._streams = streams

    async def pull(
        self, reference: str, credentials: RegistryCredentials | None = None, progress: Progress = _silent
    ) -> ImageInfo:
        return await self._line.get(
            "pull", ImageInfo, reference=reference, credentials=credentials, progress=progress
        )

    async def load(self, source: Path, progress: Progress = _silent) -> dict[str, ImageInfo]:
        return await self._line.get("load", dict[str, ImageInfo], source=source, progress=progress)

    @contextlib.asynccontextmanager
    async def context(self, archive: Path) -> AsyncIterator[Path]:
        place = await self._line.get("open_context", Path, archive=archive)
        try:
            yield place
        finally:
            await self._line.tell("close_context", place=place)

    async def bases(self, context: Path, build: BuildSpec) -> list[str]:
        return await self._line.ask("bases", list[str], context=context, build=build)

    async def build(self, context: Path, build: BuildSpec, progress: Progress = _silent) -> ImageInfo:
        return await self._line.get("build", ImageInfo, context=context, build=build, progress=progress)

    async def bootstrap(self, suite: str, progress: Progress = _silent) -> ImageInfo:
        return await self._line.get("bootstrap", ImageInfo, suite=suite, progress=progress)

    async def unpack(self, digest: Digest) -> tuple[Path, ...]:
        return await self._line.get("unpack", tuple[Path, ...], digest=digest)

    async def info(self, digest: Digest) -> ImageInfo:
        return await self._line.ask("info", ImageInfo, digest=digest)

    def export(self, digest: Digest) -> AsyncIterator[bytes]:
        return self._streams.export(digest)

    async def receive(self, digest: Digest, layout: AsyncIterator[bytes]) -> ImageInfo:
        return await self._streams.receive(digest, layout)

    async def prune(self, keep: set[Digest]) -> Bytes:
        return await self._line.get("prune", Bytes, keep=keep)
