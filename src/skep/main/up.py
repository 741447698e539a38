"""`skep up`: everything of an installation in one process."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from skep.api.app import build_app
from skep.api.server import make_server
from skep.bus.opening import open_bus
from skep.configuration import Configuration
from skep.control.control import Control
from skep.control.setup import prepare_installation, register_host
from skep.main.local_host import local_host
from skep.main.plane import control_plane, foundation
from skep.main.process import alone, collect_garbage_seldom, listener_on
from skep.model.ids import new_id
from skep.providers.local.programs import require_programs

log = structlog.get_logger("skep")


async def run(settings: Configuration) -> None:
    """Serve until SIGTERM or SIGINT.  Containers go on when the process ends, and are adopted by the next."""
    collect_garbage_seldom()
    started = time.monotonic()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    require_programs()
    with alone(settings), listener_on(settings) as listener:
        async with installation(settings) as control:
            server = make_server(build_app(control), *settings.address)
            serving = asyncio.create_task(server.serve([listener]))
            log.info("skep.up", listen=settings.listen, took=round(time.monotonic() - started, 3))
            await asyncio.wait(
                [serving, asyncio.create_task(stop.wait())], return_when=asyncio.FIRST_COMPLETED
            )
            server.should_exit = True
            await serving
    log.info("skep.ended")


@asynccontextmanager
async def installation(settings: Configuration) -> AsyncIterator[Control]:
    """Everything but the entrances, joined and running."""
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(open_bus(settings.bus))
        base = await foundation(stack, settings, bus)
        host = await local_host(stack, settings, base.desired, base.observations)
        await prepare_installation(
            base.database,
            region=settings.region,
            zone=settings.zone,
            token_file=settings.etc / "admin.token",
            now=time.time,
            new_id=new_id,
        )
        await register_host(base.database, settings.zone, settings.host, host.facts)
        base.directory.add(settings.host, host)
        yield await control_plane(stack, base)
