"""Steps that make, copy and delete disks."""

from collections.abc import AsyncIterator

import msgspec

from skep.control.flows.environment import Cloud, OnHost
from skep.control.ports import DiskPool
from skep.flow import step
from skep.model.errors import Conflict, Exhausted, InvalidInput, Unavailable, Unsupported
from skep.model.ids import AppId, Bytes, DiskId, HostName, SnapshotId
from skep.store import apps
from skep.store import disks as rows
from skep.streams.contents import Contents

_SAID_EVERY = 256 * 2**20
"""Bytes that pass between two words about it."""
A_DAY = 86_400
"""Seconds that a disk may take from one host to another."""


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


class Copied(msgspec.Struct, frozen=True):
    """`digest`: of what was in it.  `seal`: of the tar, by which both sides know it again."""

    digest: str
    seal: str


@step(retry=3, timeout=A_DAY)
async def copy(
    cx: Cloud, source: DiskId, source_host: HostName, target: DiskId, target_host: HostName
) -> Copied:
    """The target, which nothing may use now, holds what the source does.

    It may be begun anew at any time: what arrives counts when all of it has.  Undone, the target goes with
    the step that made it.

    Raises:
        Exhausted: it does not fit.
        Unavailable: a host does not answer.
    """
    return await _copied(cx, await _pool(cx, source_host), source, await _pool(cx, target_host), target)


@step(retry=3, timeout=A_DAY)
async def compare(cx: Cloud, disk: DiskId, host: HostName, digest: str) -> None:
    """The disk holds what was copied to it.  Raises InvalidInput: it does not."""
    await _must_hold(cx, disk, host, digest)


@step(retry=3, timeout=A_DAY)
async def catch_up(
    cx: Cloud, source: DiskId, source_host: HostName, target: DiskId, target_host: HostName, seal: str
) -> None:
    """What has changed since that copy follows; nothing uses either of the two now.

    What both hold is compared by names, kinds, owners, modes, sizes and times: what did not change was
    compared by content before.  If they differ, or changes cannot be had or taken, all of it is copied, and
    compared by content.

    Raises:
        InvalidInput: what was copied is not what the target holds.
        Exhausted: it does not fit.
        Unavailable: a host does not answer.
    """
    here, there = await _pool(cx, source_host), await _pool(cx, target_host)
    try:
        await there.receive(target, _counted(cx, here.export(source, seal)), seal)
        if await here.fingerprint(source) == await there.fingerprint(target):
            return
        cx.progress("what has changed was not told by it: all of it is copied")
    except (Conflict, Exhausted, Unsupported) as error:
        cx.progress(f"all of it is copied: {error.message}")
    copied = await _copied(cx, here, source, there, target)
    await _must_hold(cx, target, target_host, copied.digest)


async def _copied(cx: Cloud, here: DiskPool, source: DiskId, there: DiskPool, target: DiskId) -> Copied:
    """All of it."""
    reading = Contents(here.export(source))
    await there.receive(target, _counted(cx, reading.stream()))
    return Copied(await reading.digest(), reading.seal)


async def _must_hold(cx: Cloud, disk: DiskId, host: HostName, digest: str) -> None:
    reading = Contents((await _pool(cx, host)).export(disk))
    async for _block in reading.stream():
        pass
    if await reading.digest() != digest:
        raise InvalidInput(
            f"Disk {disk} on host {host} does not hold what was copied to it: nothing was changed. Try "
            "again; if that fails, too, look at the disks of that host."
        )


async def _counted(cx: Cloud, stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """As it is; how much has passed is said now and then."""
    passed = said = 0
    async for block in stream:
        passed += len(block)
        if passed - said >= _SAID_EVERY:
            said = passed
            cx.progress(f"{passed // 2**20} MiB have been copied")
        yield block


async def _pool(cx: Cloud, host: HostName) -> DiskPool:
    if cx.env.hosts is None:
        raise Unavailable(f"Host {host!r} does not answer.")
    return (await cx.env.hosts.answering(host)).disks


@step(kind="transactional")
async def forget_left(cx: Cloud, app: AppId, disks: list[DiskId]) -> None:
    """What an app left behind where it was is gone; plans that were made before count no more."""
    row = await apps.get(cx.tx, app)
    if row is not None:
        await apps.save(cx.tx, msgspec.structs.replace(row, version=row.version + 1))
    await rows.delete(cx.tx, disks)


@step(kind="transactional")
async def record_size(cx: Cloud, disk: DiskId, size: Bytes) -> None:
    await rows.set_size(cx.tx, disk, size)


@step(kind="transactional")
async def forget(cx: Cloud, disk: DiskId) -> None:
    await rows.delete(cx.tx, [disk])
