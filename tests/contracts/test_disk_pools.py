"""What control may expect of every disk pool."""

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.bus.broker import Broker
from tests.cluster.kubernetes.cluster import Cluster
from tests.contracts.remote import Parts, elsewhere
from tests.contracts.trees import digest, held, members, shipped, tree
from tests.providers.kubernetes.zone import open_zone

from skep.control.ports import DiskPool
from skep.model.errors import Conflict, Exhausted, InvalidInput, NotFound, Unavailable, Unsupported
from skep.model.host import DiskSpec
from skep.model.ids import Bytes, DiskId, SnapshotId, TenantId, new_id
from skep.providers.local.disks import BtrfsPool, teardown
from skep.providers.simulated import SimulatedPool
from skep.streams.contents import Contents

MIB = 1024 * 1024


def disk(size: int = 16 * MIB) -> DiskSpec:
    return DiskSpec(id=DiskId(new_id()), size=Bytes(size), kind="data", tenant=TenantId(new_id()))


class DiskPoolContract:
    """Whatever the disks are."""

    async def test_a_new_disk_has_its_size(self, pool: DiskPool) -> None:
        spec = disk()

        await pool.create(spec)

        usage = (await pool.list())[spec.id]
        assert (usage.size, usage.kind) == (spec.size, "data")
        assert usage.used < MIB

    async def test_creating_an_equal_disk_again_is_success(self, pool: DiskPool) -> None:
        for spec in (disk(), msgspec.structs.replace(disk(), kind="system")):
            await pool.create(spec)

            await pool.create(spec)

            assert (await pool.list())[spec.id].kind == spec.kind

    async def test_creating_an_unequal_disk_is_a_conflict(self, pool: DiskPool) -> None:
        spec = disk()
        await pool.create(spec)

        for other in (
            msgspec.structs.replace(spec, size=Bytes(8 * MIB)),
            msgspec.structs.replace(spec, kind="system"),
        ):
            with pytest.raises(Conflict):
                await pool.create(other)

    async def test_a_disk_grows(self, pool: DiskPool) -> None:
        spec = disk(4 * MIB)
        await pool.create(spec)

        await pool.resize(spec.id, Bytes(16 * MIB))
        await pool.resize(spec.id, Bytes(16 * MIB))

        assert (await pool.list())[spec.id].size == 16 * MIB

    async def test_a_deleted_disk_is_gone_and_deleting_it_again_is_success(self, pool: DiskPool) -> None:
        for spec in (disk(), msgspec.structs.replace(disk(), kind="system")):
            await pool.create(spec)

            await pool.delete(spec.id)
            await pool.delete(spec.id)

            assert spec.id not in await pool.list()

    async def test_what_is_not_there_does_not_grow(self, pool: DiskPool) -> None:
        with pytest.raises(NotFound):
            await pool.resize(DiskId(new_id()), Bytes(MIB))

    async def test_the_parts_of_the_pool_make_the_whole(self, pool: DiskPool) -> None:
        usage = await pool.usage()

        assert 0 <= usage.free <= usage.total
        assert usage.used + usage.free == usage.total

    async def test_a_snapshot_that_is_not_there_is_gone_already(self, pool: DiskPool) -> None:
        await pool.delete_snapshot(SnapshotId(new_id()))

        assert await pool.snapshots() == {}

    async def test_what_a_disk_holds_goes_to_another_one_as_often_as_it_is_sent(self, pool: DiskPool) -> None:
        one, other = disk(), disk()
        sent = tree(large=os.urandom(3 * MIB), empty=b"")
        for spec in (one, other):
            await pool.create(spec)
        await pool.receive(one.id, shipped(sent))

        await pool.receive(other.id, pool.export(one.id))
        passing = Contents(pool.export(one.id))
        await pool.receive(other.id, passing.stream())

        assert await held(pool, other.id) == members(sent)
        assert await digest(pool, other.id) == await passing.digest()
        assert (await pool.list())[other.id].size == other.size

    async def test_what_was_there_is_there_until_all_of_the_new_has_arrived(self, pool: DiskPool) -> None:
        spec = disk()
        before = tree(before=b"old")
        await pool.create(spec)
        await pool.receive(spec.id, shipped(before))

        for broken in (_cut(shipped(tree(after=bytes(2 * MIB)))), _changed(shipped(tree(after=b"new")))):
            with pytest.raises(InvalidInput):
                await pool.receive(spec.id, broken)
        with pytest.raises(Unavailable):
            await pool.receive(spec.id, _lost(shipped(tree(after=bytes(2 * MIB)))))

        assert await held(pool, spec.id) == members(before)

    async def test_what_has_changed_follows_what_was_sent(self, pool: DiskPool) -> None:
        one, other = disk(), disk()
        for spec in (one, other):
            await pool.create(spec)
        await pool.receive(one.id, shipped(tree(stays=os.urandom(MIB), goes=b"x")))
        first = Contents(pool.export(one.id))
        await pool.receive(other.id, first.stream())
        looked = await pool.fingerprint(one.id)

        for _ in range(2):  # whoever asks again hears the same, whatever became of the changes
            changes = Contents(pool.export(one.id, first.seal))
            sent = [block async for block in changes.stream()]
        await pool.receive(other.id, _stream(sent), first.seal)

        assert await held(pool, other.id) == await held(pool, one.id)
        assert await pool.fingerprint(other.id) == looked == await pool.fingerprint(one.id)

    async def test_changes_of_another_copy_are_refused_and_change_nothing(self, pool: DiskPool) -> None:
        one, other = disk(), disk()
        before = tree(before=b"old")
        for spec in (one, other):
            await pool.create(spec)
            await pool.receive(spec.id, shipped(before))
        sent = Contents(pool.export(one.id))
        blocks = [block async for block in sent.stream()]

        with pytest.raises(Conflict):
            await pool.receive(other.id, _stream(blocks), sent.seal[::-1])
        with pytest.raises(Conflict):
            async for _block in pool.export(one.id, sent.seal[::-1]):
                pass
        await pool.receive(one.id, shipped(before))  # what was sent of it then, it holds no more
        with pytest.raises(Conflict):
            async for _block in pool.export(one.id, sent.seal):
                pass

        assert await held(pool, other.id) == members(before)

    async def test_nothing_is_sent_or_taken_of_a_disk_that_is_not_there(self, pool: DiskPool) -> None:
        absent = DiskId(new_id())

        with pytest.raises(NotFound):
            await held(pool, absent)
        with pytest.raises(NotFound):
            await pool.receive(absent, shipped(tree()))


async def _stream(blocks: list[bytes]) -> AsyncIterator[bytes]:
    for block in blocks:
        yield block


async def _cut(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Its last block is missing: the end of the tar with the proof, or the proof alone."""
    blocks = [block async for block in stream]
    for block in blocks[:-1]:
        yield block


async def _changed(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    content = b"".join([block async for block in stream])
    assert b"new" in content
    yield content.replace(b"new", b"NEW")


async def _lost(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield await anext(stream)
    raise Unavailable("The host does not answer.")


class MountedPoolContract(DiskPoolContract, ABC):
    """Of pools whose disks are mounted on the host: what they hold is counted, and kept."""

    @abstractmethod
    async def write(self, pool: DiskPool, disk: DiskId, size: int) -> None:
        """Write so many bytes to the disk.  Raises OSError."""

    async def test_a_disk_has_a_path(self, pool: DiskPool) -> None:
        spec = disk()

        await pool.create(spec)

        assert (await pool.path(spec.id)).name == spec.id
        with pytest.raises(NotFound):
            await pool.path(DiskId(new_id()))

    async def test_a_disk_that_is_created_again_keeps_what_it_holds(self, pool: DiskPool) -> None:
        spec = disk()
        await pool.create(spec)
        await self.write(pool, spec.id, 2 * MIB)

        await pool.create(spec)

        assert (await pool.list())[spec.id].used >= 2 * MIB

    async def test_writes_beyond_the_size_fail_with_edquot(self, pool: DiskPool) -> None:
        spec = disk(4 * MIB)
        await pool.create(spec)

        with pytest.raises(OSError) as caught:
            await self.write(pool, spec.id, 8 * MIB)

        assert caught.value.errno == errno.EDQUOT

    async def test_a_grown_disk_takes_more(self, pool: DiskPool) -> None:
        spec = disk(4 * MIB)
        await pool.create(spec)

        await pool.resize(spec.id, Bytes(16 * MIB))

        await self.write(pool, spec.id, 8 * MIB)
        assert (await pool.list())[spec.id].used >= 8 * MIB

    async def test_a_disk_does_not_become_smaller_than_what_it_holds(self, pool: DiskPool) -> None:
        spec = disk()
        await pool.create(spec)
        await self.write(pool, spec.id, 8 * MIB)

        with pytest.raises(InvalidInput):
            await pool.resize(spec.id, Bytes(4 * MIB))

        assert (await pool.list())[spec.id].size == spec.size

    async def test_a_disk_that_is_too_small_for_what_arrives_keeps_what_it_has(self, pool: DiskPool) -> None:
        spec = disk(4 * MIB)
        before = tree(before=b"old")
        await pool.create(spec)
        await pool.receive(spec.id, shipped(before))

        with pytest.raises(Exhausted, match="larger"):
            await pool.receive(spec.id, shipped(tree(large=os.urandom(6 * MIB))))

        assert await held(pool, spec.id) == members(before)
        assert list(await pool.list()) == [spec.id]

    async def test_the_pool_knows_what_is_free(self, pool: DiskPool) -> None:
        assert (await pool.usage()).free > 0


class SnapshotPoolContract(DiskPoolContract):
    """Of pools that keep what a disk holds."""

    async def test_a_restored_disk_holds_what_it_held_as_often_as_it_is_restored(
        self, pool: DiskPool
    ) -> None:
        spec, kept = disk(), SnapshotId(new_id())
        before, after = tree(before=b"old"), tree(after=b"new")
        await pool.create(spec)
        await pool.receive(spec.id, shipped(before))
        await pool.snapshot(spec.id, kept)
        await pool.receive(spec.id, shipped(after))

        await pool.snapshot(spec.id, kept)
        await pool.restore(spec.id, kept)
        await pool.restore(spec.id, kept)

        assert await held(pool, spec.id) == members(before)
        assert await pool.snapshots() == {kept: spec.id}
        assert {key: (one.size, one.kind) for key, one in (await pool.list()).items()} == {
            spec.id: (spec.size, "data")
        }

    async def test_changes_do_not_follow_what_a_disk_was_restored_from(self, pool: DiskPool) -> None:
        spec, kept = disk(), SnapshotId(new_id())
        await pool.create(spec)
        await pool.snapshot(spec.id, kept)
        arrived = Contents(shipped(tree(later=b"x")))
        await pool.receive(spec.id, arrived.stream())

        await pool.restore(spec.id, kept)

        with pytest.raises(Conflict):
            await pool.receive(spec.id, shipped(tree(later=b"y")), arrived.seal)

    async def test_of_a_disk_that_went_back_no_changes_are_sent_but_all_that_it_holds(
        self, pool: DiskPool
    ) -> None:
        spec, kept = disk(), SnapshotId(new_id())
        await pool.create(spec)
        sent = Contents(pool.export(spec.id))
        async for _block in sent.stream():
            pass
        await pool.snapshot(spec.id, kept)
        await pool.restore(spec.id, kept)

        with pytest.raises(Conflict):
            async for _block in pool.export(spec.id, sent.seal):
                pass

    async def test_a_snapshot_goes_when_it_is_asked_to_and_with_its_disk(self, pool: DiskPool) -> None:
        spec, one, other = disk(), SnapshotId(new_id()), SnapshotId(new_id())
        await pool.create(spec)
        await pool.snapshot(spec.id, one)
        await pool.snapshot(spec.id, other)

        await pool.delete_snapshot(one)
        await pool.delete_snapshot(one)
        left = await pool.snapshots()
        await pool.delete(spec.id)

        assert left == {other: spec.id}
        assert await pool.snapshots() == {}

    async def test_only_what_is_there_is_kept_or_restored(self, pool: DiskPool) -> None:
        spec = disk()
        await pool.create(spec)

        with pytest.raises(NotFound):
            await pool.snapshot(DiskId(new_id()), SnapshotId(new_id()))
        with pytest.raises(NotFound):
            await pool.restore(spec.id, SnapshotId(new_id()))


class MountedSnapshotContract(SnapshotPoolContract, MountedPoolContract):
    """Of pools that do, and count it."""

    async def test_a_restored_disk_counts_what_it_held(self, pool: DiskPool) -> None:
        spec, kept = disk(), SnapshotId(new_id())
        await pool.create(spec)
        await self.write(pool, spec.id, 2 * MIB)
        await pool.snapshot(spec.id, kept)
        await self.write(pool, spec.id, 6 * MIB)

        await pool.snapshot(spec.id, kept)
        await pool.restore(spec.id, kept)
        await pool.restore(spec.id, kept)

        found = (await pool.list())[spec.id]
        assert (found.size, found.kind) == (spec.size, "data")
        assert 2 * MIB <= found.used < 4 * MIB
        assert list(await pool.list()) == [spec.id]

    async def test_a_restored_disk_takes_no_more_than_its_size(self, pool: DiskPool) -> None:
        spec, kept = disk(8 * MIB), SnapshotId(new_id())
        await pool.create(spec)
        await self.write(pool, spec.id, 4 * MIB)
        await pool.snapshot(spec.id, kept)
        await pool.restore(spec.id, kept)

        with pytest.raises(OSError) as caught:
            await self.write(pool, spec.id, 16 * MIB)

        assert caught.value.errno == errno.EDQUOT


class TestSimulatedPool(MountedSnapshotContract):
    @pytest.fixture
    def pool(self) -> SimulatedPool:
        return SimulatedPool(size=Bytes(300 * MIB))

    async def write(self, pool: DiskPool, disk: DiskId, size: int) -> None:
        assert isinstance(pool, SimulatedPool)
        pool.fill(disk, Bytes(size))


@pytest.fixture
async def btrfs(tmp_path: Path) -> AsyncIterator[BtrfsPool]:
    root, mount = tmp_path / "root", tmp_path / "mount"
    try:
        async with BtrfsPool(
            root=root, mount=mount, device=None, size=Bytes(300 * MIB), reserve=Bytes(8 * MIB)
        ) as pool:
            yield pool
    finally:
        await teardown(root, mount, purge=True)


@pytest.mark.root
class TestBtrfsPool(MountedSnapshotContract):
    @pytest.fixture
    async def pool(self, btrfs: BtrfsPool) -> DiskPool:
        return btrfs

    async def write(self, pool: DiskPool, disk: DiskId, size: int) -> None:
        path = await pool.path(disk) / "file"
        with path.open("wb", buffering=0) as file:
            for _ in range(size // MIB):
                file.write(os.urandom(MIB))
            os.fsync(file.fileno())


@pytest.mark.root
class TestPoolOverRabbitMq(TestBtrfsPool):
    @pytest.fixture
    async def pool(self, btrfs: BtrfsPool, tmp_path: Path, broker: Broker) -> AsyncIterator[DiskPool]:
        async with elsewhere(Parts(disks=btrfs), tmp_path, broker.url) as host:
            yield host.disks


@pytest.mark.root
class TestRemotePool(TestBtrfsPool):
    @pytest.fixture
    async def pool(self, btrfs: BtrfsPool, tmp_path: Path) -> AsyncIterator[DiskPool]:
        async with elsewhere(Parts(disks=btrfs), tmp_path) as host:
            yield host.disks


@pytest.mark.root
@pytest.mark.kubernetes
class TestClaimPool(SnapshotPoolContract):
    @pytest.fixture
    async def pool(self, kubernetes: Cluster) -> AsyncIterator[DiskPool]:
        async with open_zone(kubernetes) as zone:
            yield zone.disks

    async def test_what_a_cluster_cannot_is_refused_by_name(self, pool: DiskPool) -> None:
        spec = disk()
        await pool.create(spec)

        with pytest.raises(Unsupported, match="smaller"):
            await pool.resize(spec.id, Bytes(MIB))
        with pytest.raises(Unsupported, match="path"):
            await pool.path(spec.id)
