"""What disks hold on its way, on real btrfs: what the contract of all pools cannot see."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.contracts.trees import held, members, shipped, tree
from tests.providers.disks.test_disks import MIB, data_disk, folder, kernel_groups, pool_at

from skep.model.errors import Stale

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


async def _joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for block in rest:
        yield block


async def _waiting(stream: AsyncIterator[bytes], go_on: asyncio.Event) -> AsyncIterator[bytes]:
    async for block in stream:
        yield block
    await go_on.wait()
