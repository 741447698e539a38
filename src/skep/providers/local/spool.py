"""Files that wait on this machine for the run that takes them, in a folder only root can read."""

import asyncio
import shutil
from pathlib import Path

from skep.model.errors import InvalidInput, NotFound


class FolderSpool:
    """Satisfies `Spool` of control; the folder exists."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def take(self, file: Path) -> None:
        if file.parent != self.folder:
            await asyncio.to_thread(shutil.move, file, self._at(file.name))

    async def path(self, name: str) -> Path:
        path = self._at(name)
        if not path.is_file():
            raise NotFound("The upload is gone: send it again.")
        return path

    async def read(self, name: str) -> bytes:
        path = await self.path(name)
        return await asyncio.to_thread(path.read_bytes)

    async def discard(self, name: str) -> None:
        self._at(name).unlink(missing_ok=True)

    def _at(self, name: str) -> Path:
        if not name or name.startswith(".") or "/" in name:
            raise InvalidInput(f"{name[:80]!r} is no name for an upload.")
        return self.folder / name
