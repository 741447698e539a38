"""`skep up`: everything of an installation in one process."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from skep.bus.opening import open_bus
from skep.configuration import Configuration
from skep.control.control import Control
from skep.control.setup import register_host
from skep.main.background import background
from skep.main.cluster_hosts import lead_clusters
from skep.main.heartbeat import send_heartbeats
from skep.main.layout import layout
from skep.main.local_host import local_host
from skep.main.plane import control_plane, foundation, heartbeats, prepare
from skep.main.process import alone, collect_garbage_seldom, listener_on, stopped
from skep.main.serving import serve_api
from skep.model.topology import PER_TIMEOUT
from skep.providers.local.programs import require_programs

log = structlog.get_logger("skep")


async def run(settings: Configuration) -> None:
    """Serve until SIGTERM or SIGINT.  Containers go on when the process ends, and are adopted by the next."""
    if (plan := layout(settings)) is not None:
        from skep.main import datacentre  # what hosts elsewhere need, one machine saves

        await datacentre.run(settings, plan)
        return
    collect_garbage_seldom()
    stop = stopped()
    require_programs()
    with alone(settings), listener_on(settings) as listener:
        async with installation(settings) as control:
            await serve_api(control, settings, listener, stop)
    log.info("skep.ended")


@asynccontextmanager
async def installation(settings: Configuration) -> AsyncIterator[Control]:
    """Everything but the entrances, joined and running."""
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(open_bus(settings.bus))
        base = await foundation(stack, settings, bus)
        host = await local_host(stack, settings, base.desired, base.observations, settings.underlay)
        await prepare(base, settings.zone)
        await register_host(
            base.database, settings.zone, settings.host, host.facts, str(settings.underlay or "")
        )
        base.directory.add(settings.host, host)
        beating = send_heartbeats(settings.host, host, heartbeats(base), settings.silence / PER_TIMEOUT)
        await stack.enter_async_context(background(beating, "heartbeat"))
        await lead_clusters(stack, base)
        yield await control_plane(stack, base)
