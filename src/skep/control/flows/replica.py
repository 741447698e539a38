"""Bringing back a replica that should run and does not."""

from skep.control.flows.environment import OnHost
from skep.control.flows.network import plug_container
from skep.flow import step
from skep.model.errors import SkepError
from skep.model.ids import ContainerId


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
            await host.disks.path(mount.disk)  # data is never replaced by an empty disk
    await plug_container(cx, container)
    await host.engine.start(spec)
