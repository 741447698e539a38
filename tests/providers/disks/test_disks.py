"""The disk pool on real btrfs: loop files of a few hundred megabytes in a temporary directory."""

import asyncio
import errno
import fcntl
import os
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from skep.model.errors import Conflict, Exhausted, HostFailure, InvalidInput, NotFound
from skep.model.host import DiskSpec
from skep.model.ids import Bytes, DiskId, new_id
from skep.providers.local import btrfs
from skep.providers.local.commands import run
from skep.providers.local.disks import BtrfsPool, teardown
from skep.providers.local.pool_device import is_mounted

pytestmark = pytest.mark.root

MIB = 1024 * 1024


def data_disk(size: int = 16 * MIB) -> DiskSpec:
    return DiskSpec(id=DiskId(new_id()), size=Bytes(size), kind="data")


def pool_at(folder: Path, size: int = 300 * MIB, reserve: int = 8 * MIB) -> BtrfsPool:
    return BtrfsPool(
        root=folder / "root", mount=folder / "mount", device=None, size=Bytes(size), reserve=Bytes(reserve)
    )


def write(path: Path, size: int) -> None:
    with path.open("wb", buffering=0) as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))
        os.fsync(file.fileno())


def kernel_groups(mount: Path) -> set[str]:
    with btrfs.directory(mount) as fd:
        groups = Path("/sys/fs/btrfs") / btrfs.file_system_id(fd) / "qgroups"
    return {entry.name for entry in groups.iterdir() if entry.name.startswith("1_")}


def make_read_only(subvolume: Path) -> None:
    """BTRFS_IOC_SUBVOL_SETFLAGS with BTRFS_SUBVOL_RDONLY, which the owner of a subvolume may do."""
    with btrfs.directory(subvolume) as fd:
        fcntl.ioctl(fd, (1 << 30) | (8 << 16) | (0x94 << 8) | 26, struct.pack("=Q", 2))


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Path]:
    """A place for a pool; whatever lies mounted there is gone afterwards."""
    yield tmp_path
    await teardown(tmp_path / "root", tmp_path / "mount", purge=True)
    assert not is_mounted(tmp_path / "mount")
    async with asyncio.timeout(30):  # the kernel lets a loop device go once nobody looks at it any more
        while str(tmp_path) in await run("losetup", "--list"):
            await asyncio.sleep(0.05)


@pytest.fixture
async def pool(folder: Path) -> AsyncIterator[BtrfsPool]:
    async with pool_at(folder) as pool:
        yield pool


async def test_a_new_disk_is_an_empty_directory_listed_with_its_size(pool: BtrfsPool) -> None:
    disk = data_disk()

    await pool.create(disk)

    assert list((await pool.path(disk.id)).iterdir()) == []
    usage = (await pool.list())[disk.id]
    assert usage.size == disk.size
    assert usage.used < MIB


async def test_creating_an_equal_disk_again_keeps_what_is_on_it(pool: BtrfsPool) -> None:
    disk = data_disk()
    await pool.create(disk)
    (await pool.path(disk.id) / "file").write_text("kept")

    await pool.create(disk)

    assert (await pool.path(disk.id) / "file").read_text() == "kept"


async def test_an_unequal_disk_with_the_same_id_is_a_conflict(pool: BtrfsPool) -> None:
    disk = data_disk()
    await pool.create(disk)

    with pytest.raises(Conflict):
        await pool.create(DiskSpec(id=disk.id, size=Bytes(disk.size * 2), kind="data"))
    with pytest.raises(Conflict):
        await pool.create(DiskSpec(id=disk.id, size=disk.size, kind="system"))


async def test_writing_beyond_the_size_fails_with_edquot(pool: BtrfsPool) -> None:
    disk = data_disk(8 * MIB)
    await pool.create(disk)
    path = await pool.path(disk.id)

    with pytest.raises(OSError) as refused:
        write(path / "big", 12 * MIB)

    assert refused.value.errno == errno.EDQUOT


async def test_subvolumes_made_inside_a_disk_count_against_its_size(pool: BtrfsPool) -> None:
    disk = data_disk(8 * MIB)
    await pool.create(disk)
    path = await pool.path(disk.id)
    with btrfs.directory(path) as fd:
        btrfs.create_subvolume(fd, "inside")

    with pytest.raises(OSError) as refused:
        write(path / "inside" / "big", 12 * MIB)

    assert refused.value.errno == errno.EDQUOT


async def test_a_full_disk_takes_more_after_it_was_enlarged(pool: BtrfsPool) -> None:
    disk = data_disk(8 * MIB)
    await pool.create(disk)
    path = await pool.path(disk.id)
    with pytest.raises(OSError):
        write(path / "big", 12 * MIB)

    await pool.resize(disk.id, Bytes(64 * MIB))
    write(path / "more", 20 * MIB)

    assert (await pool.list())[disk.id].size == 64 * MIB


async def test_a_disk_does_not_become_smaller_than_what_it_holds(pool: BtrfsPool) -> None:
    disk = data_disk(32 * MIB)
    await pool.create(disk)
    write(await pool.path(disk.id) / "file", 10 * MIB)

    with pytest.raises(InvalidInput):
        await pool.resize(disk.id, Bytes(5 * MIB))
    await pool.resize(disk.id, Bytes(20 * MIB))

    assert (await pool.list())[disk.id].size == 20 * MIB


async def test_usage_follows_what_is_written(pool: BtrfsPool) -> None:
    disk = data_disk(32 * MIB)
    await pool.create(disk)

    write(await pool.path(disk.id) / "file", 10 * MIB)

    assert 10 * MIB <= (await pool.list())[disk.id].used < 12 * MIB
    usage = await pool.usage()
    assert usage.total == 291 * MIB
    assert usage.used >= 10 * MIB


async def test_delete_takes_read_only_and_deeply_nested_subvolumes_along(
    pool: BtrfsPool, folder: Path
) -> None:
    disk = data_disk(64 * MIB)
    await pool.create(disk)
    place = root = await pool.path(disk.id)
    descriptor = os.open(root, os.O_RDONLY)
    for _ in range(1200):  # deeper than Python's stack, by a path longer than PATH_MAX
        btrfs.create_subvolume(descriptor, "deep")
        inner = os.open("deep", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
    for _ in range(3):
        make_read_only(place)
        place = place / "deep"

    await pool.delete(disk.id)

    assert await run("btrfs", "subvolume", "list", folder / "mount") == ""


async def test_delete_takes_nested_subvolumes_open_files_and_the_quota_group_along(
    pool: BtrfsPool, folder: Path
) -> None:
    disk = data_disk()
    await pool.create(disk)
    path = await pool.path(disk.id)
    (path / "deep" / "er").mkdir(parents=True)
    with btrfs.directory(path / "deep" / "er") as fd:
        btrfs.create_subvolume(fd, "one")
    with btrfs.directory(path / "deep" / "er" / "one") as fd:
        btrfs.create_subvolume(fd, "two")
    subvolumes_before = len((await run("btrfs", "subvolume", "list", folder / "mount")).splitlines())

    with (path / "open").open("wb") as file:
        file.write(b"still here")
        await pool.delete(disk.id)

    assert subvolumes_before == 3
    assert await run("btrfs", "subvolume", "list", folder / "mount") == ""
    assert kernel_groups(folder / "mount") == set()
    with pytest.raises(NotFound):
        await pool.path(disk.id)
    await pool.delete(disk.id)


async def test_a_full_disk_can_be_deleted(pool: BtrfsPool) -> None:
    disk = data_disk(8 * MIB)
    await pool.create(disk)
    with pytest.raises(OSError):
        write(await pool.path(disk.id) / "big", 12 * MIB)

    await pool.delete(disk.id)

    assert await pool.list() == {}


async def create_when_freed(pool: BtrfsPool, disk: DiskSpec) -> None:
    """Blocks of deleted disks are freed by a thread of the kernel after a commit."""
    for _ in range(100):
        try:
            await pool.create(disk)
            return
        except Exhausted:
            await asyncio.sleep(0.1)
    await pool.create(disk)


async def test_a_full_pool_says_so_and_takes_disks_again_after_a_deletion(folder: Path) -> None:
    async with pool_at(folder, size=300 * MIB, reserve=32 * MIB) as pool:
        disk = data_disk(500 * MIB)
        await pool.create(disk)
        with pytest.raises(OSError) as full:
            write(await pool.path(disk.id) / "big", 350 * MIB)
        assert full.value.errno == errno.EDQUOT

        with pytest.raises(Exhausted, match="pool is full"):
            await pool.create(data_disk())
        await pool.delete(disk.id)

        await create_when_freed(pool, data_disk())


async def test_the_pool_grows_while_it_is_used(folder: Path) -> None:
    async with pool_at(folder) as pool:
        disk = data_disk()
        await pool.create(disk)

        with (await pool.path(disk.id) / "open").open("wb") as file:
            async with pool_at(folder, size=500 * MIB) as larger:
                file.write(b"goes on")
                assert (await larger.usage()).total == 485 * MIB

        async with pool_at(folder, size=300 * MIB) as same:
            assert (await same.usage()).total == 485 * MIB


async def test_disks_are_found_again_after_the_pool_was_unmounted(folder: Path) -> None:
    disk = data_disk()
    async with pool_at(folder) as pool:
        await pool.create(disk)
        write(await pool.path(disk.id) / "file", 2 * MIB)
    await teardown(folder / "root", folder / "mount")

    async with pool_at(folder) as pool:
        assert list(await pool.list()) == [disk.id]
        with pytest.raises(OSError) as refused:
            write(await pool.path(disk.id) / "big", 20 * MIB)

    assert refused.value.errno == errno.EDQUOT


async def test_a_disk_half_made_is_swept_when_the_pool_is_entered(folder: Path) -> None:
    async with pool_at(folder):
        with btrfs.directory(folder / "mount" / "disks") as disks:
            btrfs.create_subvolume(disks, ".new-abc")

    async with pool_at(folder) as pool:
        assert await pool.list() == {}
        assert list((folder / "mount" / "disks").iterdir()) == []


async def test_root_in_a_container_cannot_change_what_a_disk_is(pool: BtrfsPool) -> None:
    disk = data_disk()
    await pool.create(disk)
    change = "import os,sys; os.setxattr(sys.argv[1], 'trusted.skep.disk', b'{}')"

    with pytest.raises(HostFailure, match="Operation not permitted"):
        await run("setpriv", "--bounding-set=-sys_admin", "python3", "-c", change, await pool.path(disk.id))


async def test_an_id_that_is_a_path_is_refused(pool: BtrfsPool) -> None:
    with pytest.raises(InvalidInput):
        await pool.create(DiskSpec(id=DiskId("../escape"), size=Bytes(MIB), kind="data"))


async def test_a_device_with_another_file_system_is_not_erased(folder: Path) -> None:
    image = folder / "device.img"
    image.touch()
    os.truncate(image, 16 * MIB)
    await run("mkfs.ext4", "-q", image)
    loop = (await run("losetup", "--find", "--show", image)).strip()
    try:
        pool = BtrfsPool(
            root=folder / "root", mount=folder / "mount", device=Path(loop), size=Bytes(0), reserve=Bytes(0)
        )
        with pytest.raises(HostFailure, match="ext4"):
            await pool.__aenter__()
    finally:
        await run("losetup", "--detach", loop)


async def test_an_empty_device_becomes_a_pool(folder: Path) -> None:
    image = folder / "device.img"
    image.touch()
    os.truncate(image, 200 * MIB)
    loop = (await run("losetup", "--find", "--show", image)).strip()
    try:
        async with BtrfsPool(
            root=folder / "root", mount=folder / "mount", device=Path(loop), size=Bytes(0), reserve=Bytes(0)
        ) as pool:
            await pool.create(data_disk())
        await teardown(folder / "root", folder / "mount")
    finally:
        await run("losetup", "--detach", loop)


async def test_hundreds_of_disks_are_made_and_listed_quickly(pool: BtrfsPool) -> None:
    disks = [data_disk() for _ in range(300)]

    began = time.perf_counter()
    await asyncio.gather(*(pool.create(disk) for disk in disks))
    created = time.perf_counter()
    listed = await pool.list()
    ended = time.perf_counter()

    each = (created - began) / len(disks) * 1000
    print(f"create {each:.2f} ms per disk; list of {len(listed)} {(ended - created) * 1000:.0f} ms")
    assert len(listed) == 300
    assert each < 20


async def test_a_snapshot_made_inside_a_disk_does_not_free_it_from_its_limit(pool: BtrfsPool) -> None:
    disk = data_disk(16 * MIB)
    await pool.create(disk)
    path = await pool.path(disk.id)
    snapshot_create = (1 << 30) | (4096 << 16) | (0x94 << 8) | 1
    with btrfs.directory(path) as fd:
        fcntl.ioctl(fd, snapshot_create, bytearray(struct.pack("=q4088s", fd, b"snapshot")))

    with pytest.raises(OSError) as refused:
        write(path / "snapshot" / "big", 30 * MIB)

    assert refused.value.errno == errno.EDQUOT
