"""Replicas as a whole: placed, brought back when they should run and do not, and going to another host."""

from contextlib import suppress

import msgspec

from skep.control.flows.environment import Cloud, OnHost
from skep.control.flows.network import plug_container
from skep.control.flows.waiting import telling
from skep.flow import step
from skep.model.errors import Conflict, SkepError, Unsupported
from skep.model.ids import AppId, ContainerId, DiskId, HostName, ReplicaId
from skep.store import apps, disks, replicas


@step
async def place(cx: OnHost, replica: ReplicaId, container: ContainerId, disk: DiskId) -> None:
    """All of a new replica whose image is there: its system disk, its ports, its container, started.

    Undone, nothing of it is left.
    """
    spec = await cx.env.desired.container(container)
    await cx.env.host.disks.create(await cx.env.desired.disk(disk))
    await plug_container(cx, container)
    async with telling(cx, container):
        await cx.env.host.engine.start(spec)


@place.undo
async def _remove_placed(cx: OnHost, replica: ReplicaId, container: ContainerId, disk: DiskId) -> None:
    await cx.env.host.engine.remove(container)
    await cx.env.host.disks.delete(disk)
    await cx.env.host.fabric.remove_sandbox(replica)


@step
async def restore(cx: OnHost, container: ContainerId, fresh: bool) -> str:
    """Make everything the container needs again and start it; `fresh` stops it first.

    Answers what went wrong, or "": one broken replica must not keep the others of its app down, and the
    reconciler asks again later.
    """
    try:
        await _restore(cx, container, fresh)
    except SkepError as error:
        cx.progress(error.message)
        return error.message
    return ""


async def _restore(cx: OnHost, container: ContainerId, fresh: bool) -> None:
    host, desired = cx.env.host, cx.env.desired
    if not await desired.wanted(container):
        return  # stopped or replaced while this run waited for its turn
    spec = await desired.container(container)
    if fresh:
        # Its network sandbox was lost: a new one is entered only by a new process.
        await host.engine.stop(container)
    await host.images.unpack(spec.image)
    await host.disks.create(await desired.disk(spec.system_disk))
    for mount in spec.mounts:
        if mount.disk is not None:
            with suppress(Unsupported):  # of a cluster: there no pod starts without its claims
                await host.disks.path(mount.disk)  # data is never replaced by an empty disk
    await plug_container(cx, container)
    await host.engine.start(spec)


@step(kind="transactional")
async def claim(
    cx: Cloud,
    replica: ReplicaId,
    container: ContainerId,
    previous: ContainerId,
    disk: DiskId,
    host: HostName,
) -> None:
    """The rows of the container and the system disk that the replica will have on the host.

    Raises:
        Conflict: it got another container meanwhile.
    """
    row, old = await replicas.get(cx.tx, replica), await replicas.container(cx.tx, previous)
    of_before = await disks.get(cx.tx, old.system_disk) if old else None
    if row is None or row.container_id != previous or old is None or of_before is None:
        raise Conflict("The replica was changed since its move was planned.")
    now = cx.env.now()
    made = msgspec.structs.replace(of_before, id=disk, name=disk, host=host, created=now)
    await disks.insert(cx.tx, [made])
    await replicas.insert_containers(
        cx.tx, [msgspec.structs.replace(old, id=container, system_disk=disk, created=now)]
    )


@claim.undo
async def _forget_claimed(
    cx: Cloud,
    replica: ReplicaId,
    container: ContainerId,
    previous: ContainerId,
    disk: DiskId,
    host: HostName,
) -> None:
    await replicas.delete_containers(cx.tx, [container])
    await disks.delete(cx.tx, [disk])


@step(kind="transactional")
async def point(
    cx: Cloud,
    replica: ReplicaId,
    container: ContainerId,
    previous: ContainerId,
    source: HostName,
    target: HostName,
) -> None:
    """From now on the replica is on the target."""
    await replicas.set_host(cx.tx, replica, target)
    await replicas.set_container(cx.tx, replica, container)


@point.undo
async def _point_back(
    cx: Cloud,
    replica: ReplicaId,
    container: ContainerId,
    previous: ContainerId,
    source: HostName,
    target: HostName,
) -> None:
    row = await replicas.get(cx.tx, replica)
    if row is not None and row.container_id == container:
        await replicas.set_host(cx.tx, replica, source)
        await replicas.set_container(cx.tx, replica, previous)


@step(kind="transactional")
async def left(cx: Cloud, app: AppId, containers: list[ContainerId]) -> None:
    """What was left behind has no rows any more; the reconciler removes it from its host.

    Plans that were made before count no more.
    """
    row = await apps.get(cx.tx, app)
    if row is not None:
        await apps.save(cx.tx, msgspec.structs.replace(row, version=row.version + 1))
    old = [await replicas.container(cx.tx, container) for container in containers]
    await replicas.delete_containers(cx.tx, containers)
    await disks.delete(cx.tx, [row.system_disk for row in old if row is not None])
