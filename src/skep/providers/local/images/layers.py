"""Unpacked layers by diff id: each once per host, shared by every image that has it.

A layer is unpacked into the scratch folder, verified, and renamed to its place.  Flushing 100 MB would make
every first start wait for the device, so the rename comes first: a mark beside the layer, holding the id of
this boot, is deleted when the flush has happened.  A layer that still has the mark of another boot may have
lost data in a power cut and is unpacked again.
"""

import asyncio
import contextlib
import ctypes
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
import structlog

from skep.model.errors import HostFailure, InvalidInput
from skep.model.ids import Bytes, Digest
from skep.providers.local.images.blobs import hex_of
from skep.providers.local.images.unpacker import REFUSED, Job, Result

log = structlog.get_logger()

_MARK = ".volatile"
_AT_ONCE = 2
_libc = ctypes.CDLL(None, use_errno=True)


class UnpackLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one archive may become at most."""

    bytes: Bytes = Bytes(16 * 1024**3)
    entries: int = 2_000_000


class Layers:
    """The folder ROOT/layers; `scratch` must lie on the same file system."""

    def __init__(self, root: Path, scratch: Path, limits: UnpackLimits) -> None:
        self.folder = root / "layers"
        self._scratch = scratch
        self._limits = limits
        self._locks: dict[Digest, asyncio.Lock] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._flushes: set[asyncio.Task[None]] = set()

    def prepare(self) -> None:
        """Delete layers that a power cut may have damaged; flush what a killed server had no time to."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        for mark in list(self.folder.glob(f"*{_MARK}")):
            if mark.read_text() != _boot_id():
                log.warning(
                    "layer.discarded", layer=mark.stem, reason="not flushed before the host went down"
                )
                remove_tree(self.folder / mark.stem)
                mark.unlink()
            elif (self.folder / mark.stem).exists():
                self._flush(Digest(f"sha256:{mark.stem}"))
            else:
                mark.unlink()

    async def close(self) -> None:
        await asyncio.gather(*self._flushes, return_exceptions=True)

    def path(self, diff_id: Digest) -> Path:
        return self.folder / hex_of(diff_id)

    async def ensure(self, blob: Path, digest: Digest, diff_id: Digest) -> Path:
        """The layer's directory, unpacked from this blob if it is not there yet.

        Raises:
            InvalidInput: the blob does not have this digest, is not this layer, or is no proper tar.
        """
        path = self.path(diff_id)
        async with self._locks.setdefault(diff_id, asyncio.Lock()):
            if not path.exists():
                with self._workplace() as fresh:
                    result = await self._unpack(blob, fresh)
                    if (result.digest, result.diff_id) != (digest, diff_id):
                        raise InvalidInput(
                            f"Layer {digest} is damaged: its content does not match its digests."
                        )
                    self._keep(fresh, diff_id)
        return path

    async def discover(self, blob: Path) -> Result:
        """Unpack a blob whose digests are not known yet, and keep it as a layer."""
        with self._workplace() as fresh:
            result = await self._unpack(blob, fresh)
            diff_id = Digest(result.diff_id)
            async with self._locks.setdefault(diff_id, asyncio.Lock()):
                if not self.path(diff_id).exists():
                    self._keep(fresh, diff_id)
        return result

    def all(self) -> set[Digest]:
        return {Digest(f"sha256:{entry.name}") for entry in self.folder.iterdir() if _MARK not in entry.name}

    def delete(self, diff_id: Digest) -> Bytes:
        """Answers the bytes freed.  The name goes first, so a crash leaves no half layer."""
        with self._workplace() as grave, contextlib.suppress(FileNotFoundError):
            self.path(diff_id).rename(grave / "layer")
            self._mark(diff_id).unlink(missing_ok=True)
            return size_of(grave)
        return Bytes(0)

    async def _unpack(self, blob: Path, target: Path) -> Result:
        async with self._slots:
            return await unpack_archive(blob, target, "layer", self._limits)

    def _keep(self, fresh: Path, diff_id: Digest) -> None:
        self._mark(diff_id).write_text(_boot_id())
        fresh.rename(self.path(diff_id))
        task = asyncio.create_task(asyncio.to_thread(self._flush, diff_id))
        self._flushes.add(task)
        task.add_done_callback(self._flushes.discard)

    def _flush(self, diff_id: Digest) -> None:
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(self.path(diff_id), os.O_RDONLY | os.O_DIRECTORY)
            try:
                if _libc.syncfs(fd) == 0:
                    self._mark(diff_id).unlink(missing_ok=True)
            finally:
                os.close(fd)

    def _mark(self, diff_id: Digest) -> Path:
        return self.folder / (hex_of(diff_id) + _MARK)

    @contextlib.contextmanager
    def _workplace(self) -> Iterator[Path]:
        place = Path(tempfile.mkdtemp(dir=self._scratch, prefix="layer-"))
        place.chmod(0o755)
        try:
            yield place
        finally:
            remove_tree(place)


async def unpack_archive(
    archive: Path, target: Path, mode: Literal["layer", "files"], limits: UnpackLimits
) -> Result:
    """Unpack a tar (plain, gzip or zstd) in a process confined to `target`.

    Raises:
        InvalidInput: the archive is broken, hostile or too large.
    """
    job = Job(
        archive=str(archive),
        target=str(target),
        mode=mode,
        max_bytes=limits.bytes,
        max_entries=limits.entries,
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-m", "skep.providers.local.images.unpacker",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        output, errors = await process.communicate(msgspec.json.encode(job))
    finally:
        if process.returncode is None:
            process.kill()
            await asyncio.shield(process.wait())
    said = errors.decode(errors="replace").strip()
    if process.returncode == REFUSED:
        raise InvalidInput(f"The archive cannot be unpacked: {said}.")
    if process.returncode:
        raise HostFailure(f"Unpacking failed: {said[-500:]}")
    return msgspec.json.decode(output, type=Result)


def remove_tree(path: Path) -> None:
    """Delete a directory with all it has.  Absent is success."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


def size_of(path: Path) -> Bytes:
    """Bytes of storage, hard links counted once."""
    seen: dict[int, int] = {}
    for folder, _, files in os.walk(path):
        for name in files:
            facts = os.lstat(os.path.join(folder, name))  # noqa: PTH118
            seen[facts.st_ino] = facts.st_blocks * 512
    return Bytes(sum(seen.values()))


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
