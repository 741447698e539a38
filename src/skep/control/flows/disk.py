"""Steps that make and delete disks."""

from skep.control.flows.environment import Cloud, OnHost
from skep.flow import step
from skep.model.errors import Unsupported
from skep.model.ids import Bytes, DiskId, SnapshotId
from skep.store import disks


@step
async def create(cx: OnHost, disk: DiskId) -> None:
    """Make a new disk; undone, it is gone."""
    await cx.env.host.disks.create(await cx.env.desired.disk(disk))


@create.undo
async def _delete(cx: OnHost, disk: DiskId) -> None:
    await cx.env.host.disks.delete(disk)


@step
async def ensure(cx: OnHost, disk: DiskId) -> None:
    """Make the disk unless it is there; it stays whatever becomes of the run."""
    await cx.env.host.disks.create(await cx.env.desired.disk(disk))


@step(retry=3)
async def delete(cx: OnHost, disk: DiskId) -> None:
    await cx.env.host.disks.delete(disk)


@step
async def snapshot(cx: OnHost, snapshots: dict[DiskId, SnapshotId], restore: list[DiskId]) -> None:
    """Keep what the disks hold, which nothing uses now; undone, those of `restore` hold it again.

    Agents of the release before keep nothing: while hosts are upgraded a release goes without.
    """
    for disk, snapshot in snapshots.items():
        try:
            await cx.env.host.disks.snapshot(disk, snapshot)
        except Unsupported as error:
            cx.progress(f"nothing is kept to go back to: {error.message}")
            return


@snapshot.undo
async def _restore(cx: OnHost, snapshots: dict[DiskId, SnapshotId], restore: list[DiskId]) -> None:
    """A snapshot that is not there was never made, or all of this is done already."""
    pool = cx.env.host.disks
    try:
        there = await pool.snapshots()
    except Unsupported:
        return
    for disk, snapshot in snapshots.items():
        if snapshot in there:
            if disk in restore:
                await pool.restore(disk, snapshot)
            await pool.delete_snapshot(snapshot)


@step
async def restore(cx: OnHost, snapshots: dict[DiskId, SnapshotId]) -> None:
    """The disks, which nothing uses now, hold what they held then; the way back is `disk.snapshot`'s."""
    for disk, snapshot in snapshots.items():
        await cx.env.host.disks.restore(disk, snapshot)


@step
async def resize(cx: OnHost, disk: DiskId, size: Bytes) -> None:
    """Raises InvalidInput: smaller than what is used."""
    await cx.env.host.disks.resize(disk, size)


@resize.undo
async def _resize_back(cx: OnHost, disk: DiskId, size: Bytes) -> None:
    """Its row has the size of before until the last step."""
    await cx.env.host.disks.resize(disk, (await cx.env.desired.disk(disk)).size)


@step(kind="transactional")
async def record_size(cx: Cloud, disk: DiskId, size: Bytes) -> None:
    await disks.set_size(cx.tx, disk, size)


@step(kind="transactional")
async def forget(cx: Cloud, disk: DiskId) -> None:
    await disks.delete(cx.tx, [disk])
