"""`skep serve`: the API alone.  Workers elsewhere carry out what it starts; several may serve at once."""

from contextlib import AsyncExitStack

import structlog

from skep.bus.opening import open_bus
from skep.configuration import Configuration
from skep.main.neighbours import know_hosts
from skep.main.plane import control_plane, foundation, must_be_shared, prepare
from skep.main.process import alone, collect_garbage_seldom, listener_on, stopped
from skep.main.serving import serve_api
from skep.trust.peers import Role

log = structlog.get_logger("skep")


async def run(settings: Configuration) -> None:
    """Serve until SIGTERM or SIGINT."""
    collect_garbage_seldom()
    must_be_shared(settings)
    stop = stopped()
    with alone(settings), listener_on(settings) as listener:
        async with AsyncExitStack() as stack:
            bus = await stack.enter_async_context(open_bus(settings.bus))
            base = await foundation(stack, settings, bus, "serve")
            await prepare(base, settings.zone)
            await know_hosts(stack, base, Role.SERVE)
            control = await control_plane(stack, base, works=False)
            await serve_api(control, settings, listener, stop)
    log.info("skep.ended")
