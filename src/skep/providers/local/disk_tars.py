"""What a disk holds as a tar, and back, by GNU tar: owners, modes, times, extended attributes, ACLs, holes.

Format: pax (POSIX.1-2001) with GNU's sparse files, in the order of names.  Of extended attributes only
`user.*`, `security.capability` and ACLs travel: `trusted.*` is the host's own.  ACLs go as the kernel has
them, by number: `--acls` writes names, which whoever takes them over may not have.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

from skep.model.errors import Exhausted, HostFailure

ATTRIBUTES = (
    "--xattrs",
    "--xattrs-include=user.*",
    "--xattrs-include=security.capability",
    "--xattrs-include=system.posix_acl_*",
)
PACK = (
    "--create",
    "--format=posix",
    "--pax-option=delete=atime,delete=ctime",
    "--sparse",
    "--sort=name",
    "--numeric-owner",
    *ATTRIBUTES,
)
UNPACK = ("--extract", "--numeric-owner", "--same-owner", "--preserve-permissions", *ATTRIBUTES)
"""Into an empty folder: links that lead elsewhere GNU tar makes last of all, so nothing goes through them."""
_FULL = ("No space left on device", "Disk quota exceeded", "Wrote only")
_BLOCK = 1024 * 1024
_LAST_WORDS = 2000
_TOO_EARLY = 255
"""What stands for the exit code of one that was content with less than all."""


async def pack(folder: Path) -> AsyncGenerator[bytes, None]:
    """The folder itself and all below it, on its file system or not.  Raises HostFailure."""
    async with _tar(*PACK, "--file=-", f"--directory={folder}", ".") as (process, errors):
        assert process.stdout is not None  # noqa: S101 - it was asked for
        while block := await process.stdout.read(_BLOCK):
            yield block
        must_have_ended_well(await process.wait(), await errors)


async def unpack(content: AsyncIterator[bytes], folder: Path) -> None:
    """Into the folder, which is empty, and becomes like the one that was packed.

    Raises:
        Exhausted: it does not fit.  HostFailure: it is no tar, or cannot be written.
    """
    async with _tar(*UNPACK, "--file=-", f"--directory={folder}") as (process, errors):
        assert process.stdin is not None  # noqa: S101 - it was asked for
        async for block in content:
            process.stdin.write(block)
            try:
                await process.stdin.drain()
            except ConnectionError:  # it has ended, and says why
                must_have_ended_well(await process.wait() or _TOO_EARLY, await errors)
        process.stdin.close()
        must_have_ended_well(await process.wait(), await errors)


def must_have_ended_well(code: int, said: str) -> None:
    """Raises Exhausted, HostFailure."""
    if code == 0:
        return
    if any(words in said for words in _FULL):
        raise Exhausted("What arrives does not fit on the disk: make it larger, and send it again.")
    raise HostFailure(f"tar failed with {code}: {said or 'it said nothing'}")


@contextlib.asynccontextmanager
async def _tar(*args: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, asyncio.Task[str]]]:
    """The process, and what it says is wrong.  Left early, it is killed."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        "tar",
        *args,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        start_new_session=True,
        env={"LC_ALL": "C.UTF-8"} | _path(),
    )
    errors = asyncio.create_task(_last_words(process.stderr))
    try:
        yield process, errors
    finally:
        if process.stdin is not None:
            process.stdin.close()
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.shield(process.wait())
        errors.cancel()


def _path() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath)}


async def _last_words(stream: asyncio.StreamReader | None) -> str:
    said = b""
    while stream is not None and (block := await stream.read(4096)):
        said = (said + block)[-_LAST_WORDS:]
    return said.decode(errors="replace").strip()
