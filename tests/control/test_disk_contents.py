"""One digest for what a disk holds, by real tars of real folders."""

import asyncio
import os
import shutil
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from skep.model.errors import InvalidInput
from skep.providers.local.disk_tars import pack, unpack
from skep.streams.contents import Contents
from skep.streams.sealing import sealed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Links of both kinds, a pipe, holes, names that are no UTF-8, and a good many files."""
    here = tmp_path / "one"
    (here / "sub").mkdir(parents=True)
    (here / "zebra").write_bytes(os.urandom(300_000))
    os.link(here / "zebra", here / "ant")
    (here / "sub" / "link").symlink_to("../nowhere")
    os.mkfifo(here / "sub" / "pipe")
    (here / os.fsdecode(b"\xff")).write_text("odd")
    with (here / "holes").open("wb") as file:
        file.seek(5_000_000)
        file.write(b"end")
        file.truncate(9_000_000)
    os.setxattr(here / "zebra", "system.posix_acl_access", _acl(4242))
    os.setxattr(here / "sub", "system.posix_acl_default", _acl(33))
    os.setxattr(here / "zebra", "user.mark", b"\xff\x00")
    for number in range(200):
        (here / "sub" / f"file-{number}").write_text(str(number))
    return here


def _acl(user: int) -> bytes:
    """Read and write for somebody else (linux/posix_acl_xattr.h)."""
    nobody = 0xFFFFFFFF
    entries = [(0x01, 6, nobody), (0x02, 6, user), (0x04, 4, nobody), (0x10, 6, nobody), (0x20, 4, nobody)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def packed(folder: Path) -> AsyncIterator[bytes]:
    """All of it, each time."""
    (state := folder.with_name("state")).unlink(missing_ok=True)
    return pack(folder, state)


async def digest(folder: Path) -> str:
    reading = Contents(sealed(packed(folder)))
    async for _block in reading.stream():
        pass
    return await reading.digest()


async def copied(folder: Path) -> Path:
    there = folder.with_name("two")
    there.mkdir()
    await unpack(packed(folder), there)
    return there


async def test_a_copy_has_the_digest_of_what_was_copied(folder: Path) -> None:
    there = await copied(folder)

    assert await digest(there) == await digest(folder)
    assert os.getxattr(there / "zebra", "system.posix_acl_access") == _acl(4242)
    assert os.getxattr(there / "sub", "system.posix_acl_default") == _acl(33)


async def test_whatever_differs_is_another_digest(folder: Path) -> None:
    before = await digest(folder)
    changes: dict[str, Callable[[Path], object]] = {
        "content": lambda place: (place / "sub" / "file-7").write_text("8"),
        "mode": lambda place: (place / "zebra").chmod(0o600),
        "time": lambda place: os.utime(place / "holes", ns=(0, 1)),
        "an ACL": lambda place: os.removexattr(place / "zebra", "system.posix_acl_access"),
        "a link less": lambda place: (place / "ant").unlink(),
        "a name": lambda place: (place / "sub" / "link").rename(place / "sub" / "other"),
    }
    for what, change in changes.items():
        place = await copied(folder)
        change(place)
        assert await digest(place) != before, what
        shutil.rmtree(place)


async def test_what_passes_is_what_was_sent(folder: Path) -> None:
    sent = b"".join([block async for block in sealed(packed(folder))])

    async def again() -> AsyncIterator[bytes]:
        for start in range(0, len(sent), 1000):
            yield sent[start : start + 1000]

    reading = Contents(again())

    assert b"".join([block async for block in reading.stream()]) == sent
    assert await reading.digest() == await digest(folder)


async def test_what_is_no_tar_holds_nobody_up() -> None:
    async def noise() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield os.urandom(100_000)

    reading = Contents(noise())
    async for _block in reading.stream():
        pass

    with pytest.raises(InvalidInput, match="no tar"):
        await reading.digest()


async def test_many_disks_are_read_at_once_and_none_waits_for_another(folder: Path) -> None:
    async with asyncio.timeout(60):
        found = await asyncio.gather(*(digest(folder) for _ in range(40)))

    assert len(set(found)) == 1
