"""`skep migrate`: brings the database to this version's schema, for processes that are set to wait for it."""

from contextlib import AsyncExitStack

import msgspec
import structlog

from skep.bus.inprocess import InProcessBus
from skep.configuration import Configuration
from skep.main.database import await_server
from skep.main.plane import foundation, prepare

log = structlog.get_logger("skep")


async def run(settings: Configuration) -> None:
    """Waits for the database, and answers when it is done; may be repeated, also by several at once."""
    await await_server(settings.database_url)
    applying = msgspec.structs.replace(settings, migrations="apply")
    async with AsyncExitStack() as stack:
        base = await foundation(stack, applying, InProcessBus(), "migrate")
        await prepare(base, settings.zone)
    log.info("skep.migrated")
