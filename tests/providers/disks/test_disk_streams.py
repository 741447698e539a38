"""What disks hold on its way, on real btrfs: what the contract of all pools cannot see."""

import asyncio
import io
import os
import signal
import stat
import sys
import tarfile
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.contracts.trees import digest, held, members, shipped, tree
from tests.providers.disks.test_disks import MIB, data_disk, folder, kernel_groups, pool_at

from skep.model.errors import Conflict, HostFailure, InvalidInput, Stale
from skep.streams.contents import Contents
from skep.streams.sealing import unsealed

__all__ = ["folder"]
pytestmark = pytest.mark.root

RECEIVES = """
import asyncio, sys
from pathlib import Path
from skep.providers.local.disks import BtrfsPool

async def content():
    for _ in range(3):
        yield sys.stdin.buffer.read(1 << 20)
    print("half", flush=True)
    await asyncio.Event().wait()

async def main(folder, disk):
    async with BtrfsPool(root=folder / "root", mount=folder / "mount", device=None, size=300 << 20) as pool:
        await pool.receive(disk, content())

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


def hidden(folder: Path) -> list[str]:
    return [entry.name for entry in (folder / "mount" / "disks").iterdir() if entry.name.startswith(".")]


async def test_holes_attributes_and_capabilities_arrive_and_what_is_the_hosts_own_does_not(
    folder: Path,
) -> None:
    one, other = data_disk(), data_disk()
    async with pool_at(folder) as pool:
        for spec in (one, other):
            await pool.create(spec)
        source = await pool.path(one.id)
        with (source / "holes").open("wb") as file:
            file.seek(500 * MIB)
            file.write(b"end")
        os.setxattr(source / "holes", "user.mark", b"\0binary\n")
        os.setxattr(source / "holes", "trusted.overlay.redirect", b"/elsewhere")
        (source / "fine").mkdir(mode=0o700)

        await pool.receive(other.id, pool.export(one.id))

        target = await pool.path(other.id)
        facts = (target / "holes").stat()
        assert (facts.st_size, facts.st_blocks * 512 < MIB) == (500 * MIB + 3, True)
        assert os.getxattr(target / "holes", "user.mark") == b"\0binary\n"
        assert "trusted.overlay.redirect" not in os.listxattr(target / "holes")
        assert (target / "fine").stat().st_mtime_ns == (source / "fine").stat().st_mtime_ns
        assert hidden(folder) == []


async def test_what_is_sent_is_of_one_moment(folder: Path) -> None:
    spec = data_disk()
    async with pool_at(folder) as pool:
        await pool.create(spec)
        await pool.receive(spec.id, shipped(tree(large=os.urandom(4 * MIB), zz=b"before")))
        stream = pool.export(spec.id)
        first = await anext(stream)
        (await pool.path(spec.id) / "zz").write_bytes(b"after!")

        other = data_disk()
        await pool.create(other)
        await pool.receive(other.id, _joined(first, stream))

        assert (await pool.path(other.id) / "zz").read_bytes() == b"before"


async def test_only_what_has_changed_is_sent_again_and_what_is_gone_goes(folder: Path) -> None:
    one, other = data_disk(), data_disk()
    async with pool_at(folder) as pool:
        for spec in (one, other):
            await pool.create(spec)
        await pool.receive(one.id, shipped(tree(large=os.urandom(4 * MIB), goes=b"g", grows=b"1")))
        await asyncio.sleep(0.1)  # what is as young as the clock is exact counts as a change
        here, there = await pool.path(one.id), await pool.path(other.id)
        first = Contents(pool.export(one.id))
        await pool.receive(other.id, first.stream())

        _change(here)
        changes = [block async for block in pool.export(one.id, first.seal)]
        await pool.receive(other.id, _stream(changes), first.seal)

        assert sum(map(len, changes)) < MIB
        assert await held(pool, other.id) == await held(pool, one.id)
        assert await digest(pool, other.id) == await digest(pool, one.id)
        assert await pool.fingerprint(other.id) == await pool.fingerprint(one.id)
        assert (await pool.path(other.id) / "again").stat().st_nlink == 2
        assert not (await pool.path(other.id) / "goes").exists()
        assert there.exists()
        assert 4 * MIB <= (await pool.list())[other.id].used < 5 * MIB
        assert hidden(folder) == []


async def test_after_changes_that_broke_off_only_all_of_it_is_taken(folder: Path) -> None:
    one, other = data_disk(), data_disk()
    async with pool_at(folder) as pool:
        for spec in (one, other):
            await pool.create(spec)
        await pool.receive(one.id, shipped(tree(file=b"old")))
        first = Contents(pool.export(one.id))
        await pool.receive(other.id, first.stream())
        (await pool.path(one.id) / "file").write_bytes(os.urandom(MIB))
        changes = [block async for block in pool.export(one.id, first.seal)]

        with pytest.raises(InvalidInput):
            await pool.receive(other.id, _stream(changes[:-1]), first.seal)
        with pytest.raises(Conflict):
            await pool.receive(other.id, _stream(changes), first.seal)
        await pool.receive(other.id, pool.export(one.id))

        assert await held(pool, other.id) == await held(pool, one.id)
        assert await pool.fingerprint(other.id) == await pool.fingerprint(one.id)


async def test_what_is_written_before_tar_begins_is_a_change(folder: Path) -> None:
    one = data_disk()
    async with pool_at(folder) as pool:
        await pool.create(one)
        await pool.receive(one.id, shipped(tree(zz=b"before")))
        stream = pool.export(one.id)
        sent = [await anext(stream)]
        (await pool.path(one.id) / "zz").write_bytes(b"during")
        seal = [*sent, *[block async for block in stream]][-1].decode()

        changes = await members_of(pool.export(one.id, seal))

        assert changes["zz"][3] == b"during"


async def test_changes_leave_the_disk_through_none_of_its_links(folder: Path) -> None:
    spec, outside = data_disk(), folder / "outside"
    outside.mkdir()
    (outside / "here").write_bytes(b"mine")
    async with pool_at(folder) as pool:
        await pool.create(spec)
        planted = Contents(shipped(_tar(links={"./way": str(outside)})))
        await pool.receive(spec.id, planted.stream())

        with suppress(HostFailure):
            evil = _tar(files={"./way/evil": b"e", "./way/here": b"e"})
            await pool.receive(spec.id, shipped(evil), planted.seal)

        assert [one.name for one in outside.iterdir()] == ["here"]
        assert (outside / "here").read_bytes() == b"mine"
        assert list((folder / "root" / "confined").iterdir()) == []


async def test_how_a_disk_looks_is_told_by_all_but_content(folder: Path) -> None:
    spec = data_disk()
    looks = set()
    async with pool_at(folder) as pool:
        await pool.create(spec)
        await pool.receive(spec.id, shipped(tree(file=b"1")))
        place = await pool.path(spec.id)
        changes: list[Callable[[], object]] = [
            lambda: None,
            lambda: (place / "file").chmod(0o600),
            lambda: os.chown(place / "file", 5, 6),
            lambda: os.utime(place / "file", ns=(0, 1)),
            lambda: os.truncate(place / "file", 7),
            lambda: (place / "file").rename(place / "name"),
            lambda: (place / "new\nline").symlink_to("one"),
        ]

        for change in changes:
            change()
            looks.add(await pool.fingerprint(spec.id))
        os.mknod(place / "deep" / "socket", stat.S_IFSOCK | 0o600)
        os.utime(place / "deep", ns=(0, 1))
        looks.add(with_socket := await pool.fingerprint(spec.id))
        (place / "deep" / "socket").unlink()
        os.utime(place / "deep", ns=(0, 1))

        assert len(looks) == len(changes) + 1
        assert await pool.fingerprint(spec.id) == with_socket


async def test_of_two_that_send_to_a_disk_the_younger_counts(folder: Path) -> None:
    spec = data_disk()
    go_on = asyncio.Event()
    async with pool_at(folder) as pool:
        await pool.create(spec)
        elder = asyncio.create_task(pool.receive(spec.id, _waiting(shipped(tree(of=b"elder")), go_on)))
        await asyncio.sleep(0.1)

        await pool.receive(spec.id, shipped(tree(of=b"younger")))
        go_on.set()

        with pytest.raises(Stale):
            await elder
        assert await held(pool, spec.id) == members(tree(of=b"younger"))


async def test_a_received_disk_is_limited_and_counted_as_before(folder: Path) -> None:
    spec = data_disk(8 * MIB)
    async with pool_at(folder) as pool:
        await pool.create(spec)
        groups = kernel_groups(folder / "mount")

        for _ in range(3):
            await pool.receive(spec.id, shipped(tree(large=os.urandom(2 * MIB))))

        used = (await pool.list())[spec.id].used
        assert 2 * MIB <= used < 3 * MIB
        assert len(kernel_groups(folder / "mount")) <= len(groups) + 1  # the last one is being deleted
        with pytest.raises(OSError, match="quota"):
            (await pool.path(spec.id) / "more").write_bytes(os.urandom(8 * MIB))


async def test_a_disk_that_changes_arrived_at_takes_as_much_as_before(folder: Path) -> None:
    one, other = data_disk(8 * MIB), data_disk(8 * MIB)
    async with pool_at(folder) as pool:
        for spec in (one, other):
            await pool.create(spec)
        await pool.receive(one.id, shipped(tree(large=os.urandom(5 * MIB))))
        first = Contents(pool.export(one.id))
        await pool.receive(other.id, first.stream())
        (await pool.path(one.id) / "large").write_bytes(os.urandom(6 * MIB))

        await pool.receive(other.id, pool.export(one.id, first.seal), first.seal)
        (await pool.path(other.id) / "large").write_bytes(os.urandom(7 * MIB))

        with pytest.raises(OSError, match="quota"):
            (await pool.path(other.id) / "more").write_bytes(os.urandom(4 * MIB))


async def test_a_process_that_is_killed_in_the_middle_leaves_the_disk_as_it_was(folder: Path) -> None:
    spec, before = data_disk(), tree(before=b"old")
    async with pool_at(folder) as pool:
        await pool.create(spec)
        await pool.receive(spec.id, shipped(before))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RECEIVES, str(folder), spec.id,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(tree(after=os.urandom(4 * MIB)))
    assert await process.stdout.readline() == b"half\n"
    assert hidden(folder) != []

    process.send_signal(signal.SIGKILL)
    await process.wait()

    async with pool_at(folder) as pool:
        assert hidden(folder) == []
        assert await held(pool, spec.id) == members(before)
        await pool.receive(spec.id, shipped(tree(after=b"new")))
        assert await held(pool, spec.id) == members(tree(after=b"new"))


def _change(place: Path) -> None:
    """In place, by name, by mode; a folder with all in it is called otherwise; a link to what is there."""
    (place / "goes").unlink()
    (place / "grows").write_bytes(b"12")
    (place / "marked").chmod(0o600)
    (place / "deep").rename(place / "deeper")
    os.link(place / "grows", place / "again")
    (place / "deeper" / "new").mkdir()
    (place / "deeper" / "new" / "file").write_bytes(b"n")


def _tar(*, files: dict[str, bytes] | None = None, links: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, target in (links or {}).items():
            one = tarfile.TarInfo(name)
            one.type, one.linkname = tarfile.SYMTYPE, target
            tar.addfile(one)
        for name, content in (files or {}).items():
            one = tarfile.TarInfo(name)
            one.size = len(content)
            tar.addfile(one, io.BytesIO(content))
    return buffer.getvalue()


async def members_of(stream: AsyncIterator[bytes]) -> dict[str, tuple[Any, ...]]:
    return members(b"".join([block async for block in unsealed(stream)]))


async def _stream(blocks: list[bytes]) -> AsyncIterator[bytes]:
    for block in blocks:
        yield block


async def _joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for block in rest:
        yield block


async def _waiting(stream: AsyncIterator[bytes], go_on: asyncio.Event) -> AsyncIterator[bytes]:
    async for block in stream:
        yield block
    await go_on.wait()
