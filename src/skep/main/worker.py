"""`skep worker`: carries out runs, reconciles, and answers hosts.  Several may work at once."""

import asyncio
from contextlib import AsyncExitStack

import structlog

from skep.bus.opening import open_bus
from skep.configuration import Configuration
from skep.main.cluster_hosts import lead_clusters
from skep.main.health import health_told
from skep.main.neighbours import answer_hosts, know_hosts
from skep.main.plane import control_plane, foundation, must_be_shared
from skep.main.process import alone, collect_garbage_seldom, stopped
from skep.trust.peers import Role

log = structlog.get_logger("skep")


async def run(settings: Configuration) -> None:
    """Work until SIGTERM or SIGINT; runs that are not ended then are taken up by other workers."""
    collect_garbage_seldom()
    must_be_shared(settings)
    stop, up = stopped(), asyncio.Event()
    with alone(settings):
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(health_told(settings.health_address, up.is_set))
            bus = await stack.enter_async_context(open_bus(settings.bus))
            base = await foundation(stack, settings, bus, "worker")
            await answer_hosts(stack, base, await know_hosts(stack, base, Role.WORKER))
            await lead_clusters(stack, base)
            await control_plane(stack, base)
            up.set()
            log.info("worker.up", process=base.process)
            await stop.wait()
    log.info("skep.ended")
