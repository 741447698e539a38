"""What a disk holds as a tar, and back, by GNU tar: owners, modes, times, extended attributes, ACLs, holes.

Format: pax (POSIX.1-2001) with GNU's sparse files, in the order of names, folders first.  Of extended
attributes only `user.*`, `security.capability` and ACLs travel: `trusted.*` is the host's own.  ACLs go as
the kernel has them, by number: `--acls` writes names, which whoever takes them over may not have.

A tar of changes has what has changed, and of every folder what is in it, so that what is gone goes
(https://www.gnu.org/software/tar/manual/html_node/Incremental-Dumps.html).
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
    "--no-check-device",  # each snapshot of a disk is a device of its own
    *ATTRIBUTES,
)
UNPACK = ("--extract", "--numeric-owner", "--same-owner", "--preserve-permissions", *ATTRIBUTES)
"""Into an empty folder: links that lead elsewhere GNU tar makes last of all, so nothing goes through them."""
CHANGES = "--listed-incremental=/dev/null"
"""Into a folder that holds what was sent before.  There links are already: see `unpack_changes`."""
LOOK = r"""
{
  find . -type f -printf 'f %m %U %G %s %T@ %P\0' \
    -o ! -type s -printf '%y %m %U %G %T@ %P %l\0' || head -c 16 /dev/urandom
} | sort -z | sha256sum | head -c 64
"""
"""`sh -c LOOK` in a folder: a digest of all that is in it but content.  Sockets do not travel."""
_CONFINED = """
set -eu
place=$1 folder=$2
shift 2
mount -t tmpfs -o size=1m,mode=700 none "$place"
mkdir "$place/disk"
for part in /usr /bin /lib /lib64; do
  if [ -L "$part" ]; then
    cp -P "$part" "$place$part"
  elif [ -d "$part" ]; then
    mkdir "$place$part"
    mount --bind -o ro "$part" "$place$part"
  fi
done
mount --bind "$folder" "$place/disk"
exec chroot "$place" tar "$@"
"""
"""`sh -c _CONFINED sh PLACE FOLDER …`, with mounts of its own: all that tar can change is the folder."""
_FULL = ("No space left on device", "Disk quota exceeded", "Wrote only")
_BLOCK = 1024 * 1024
_LAST_WORDS = 2000
_TOO_EARLY = 255
"""What stands for the exit code of one that was content with less than all."""


async def pack(folder: Path, state: Path) -> AsyncGenerator[bytes, None]:
    """The folder itself and all below it, on its file system or not.

    `state`: a file in which tar writes what it sent.  If there is one already, only what has changed since
    is sent.  Raises HostFailure.
    """
    args = (*PACK, f"--listed-incremental={state}", "--file=-", f"--directory={folder}", ".")
    async with _running("tar", *args) as (process, errors):
        assert process.stdout is not None  # noqa: S101 - it was asked for
        while block := await process.stdout.read(_BLOCK):
            yield block
        must_have_ended_well(await process.wait(), await errors)


async def unpack(content: AsyncIterator[bytes], folder: Path) -> None:
    """Into the folder, which is empty, and becomes like the one that was packed.

    Raises:
        Exhausted: it does not fit.  HostFailure: it is no tar, or cannot be written.
    """
    await _fed(content, "tar", *UNPACK, "--file=-", f"--directory={folder}")


async def unpack_changes(content: AsyncIterator[bytes], folder: Path, place: Path) -> None:
    """Into the folder, which holds what was packed before.

    Its links may lead anywhere, and the content may come from whom nobody here trusts: so tar sees nothing
    but the folder.  `place`: an empty folder for its root.  Raises: as `unpack`.
    """
    confined = ("unshare", "--mount", "--propagation=private", "sh", "-c", _CONFINED, "sh")
    await _fed(content, *confined, str(place), str(folder), *UNPACK, CHANGES, "--file=-", "--directory=/disk")


async def look(folder: Path) -> str:
    """Equal for folders in which the same names have the same kinds, owners, modes, sizes, times, targets."""
    async with _running("sh", "-c", LOOK, cwd=folder) as (process, errors):
        assert process.stdout is not None  # noqa: S101 - it was asked for
        found = await process.stdout.read()
        must_have_ended_well(await process.wait(), await errors)
    return found.decode()


def must_have_ended_well(code: int, said: str) -> None:
    """Raises Exhausted, HostFailure."""
    if code == 0:
        return
    if any(words in said for words in _FULL):
        raise Exhausted("What arrives does not fit on the disk: make it larger, and send it again.")
    raise HostFailure(f"tar failed with {code}: {said or 'it said nothing'}")


async def _fed(content: AsyncIterator[bytes], *args: str) -> None:
    async with _running(*args) as (process, errors):
        assert process.stdin is not None  # noqa: S101 - it was asked for
        async for block in content:
            process.stdin.write(block)
            try:
                await process.stdin.drain()
            except ConnectionError:  # it has ended, and says why
                must_have_ended_well(await process.wait() or _TOO_EARLY, await errors)
        process.stdin.close()
        must_have_ended_well(await process.wait(), await errors)


@contextlib.asynccontextmanager
async def _running(
    *args: str, cwd: Path | None = None
) -> AsyncIterator[tuple[asyncio.subprocess.Process, asyncio.Task[str]]]:
    """The process, and what it says is wrong.  Left early, it is killed."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *args,
        cwd=cwd,
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
