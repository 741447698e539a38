"""The image that porters run: programs of this machine with the libraries they need, and nothing else.

Made the same each time, so the registry has it once.
"""

import asyncio
import io
import re
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

from skep.model.errors import HostFailure, NotFound
from skep.model.ids import Digest
from skep.providers.kubernetes.disks.porters import PROGRAMS
from skep.providers.kubernetes.images import ClusterImages
from skep.providers.local.commands import run

_LIBRARY = re.compile(r"(?:=>\s*)?(/\S+) \(0x")


class PorterImage:
    """Called, it answers what pods name; the registry has it then."""

    def __init__(self, images: ClusterImages, folder: Path) -> None:
        self._images = images
        self._folder = folder
        self._digest: Digest | None = None
        self._lock = asyncio.Lock()

    async def __call__(self) -> str:
        async with self._lock:
            if self._digest is None or not await self._there(self._digest):
                self._digest = await self._push()
            return self._images.reference(self._digest)

    async def _there(self, digest: Digest) -> bool:
        try:
            await self._images.info(digest)
        except NotFound:
            return False
        return True

    async def _push(self) -> Digest:
        root = self._folder / "porter.tar"
        root.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            root.write_bytes(await root_of(PROGRAMS))
            return (await self._images.load(root))[""].digest
        finally:
            root.unlink(missing_ok=True)


async def root_of(programs: Sequence[str]) -> bytes:
    """A root file system with these in /bin, as a tar.  Raises HostFailure: one is not on this machine."""
    files = {f"bin/{name}": _found(name) for name in programs}
    libraries = await run("ldd", *sorted(set(files.values())))
    files |= {path.lstrip("/"): Path(path) for path in _LIBRARY.findall(libraries)}
    return await asyncio.to_thread(_packed, files)


def _found(program: str) -> Path:
    found = shutil.which(program)
    if found is None:
        raise HostFailure(
            f"{program} is not installed on this machine, and is needed to send disks to a cluster."
        )
    return Path(found).resolve()


def _packed(files: dict[str, Path]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, source in sorted(files.items()):
            content = source.read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
