"""Work that goes on beside everything else of a process."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress

import structlog

log = structlog.get_logger("skep")


@asynccontextmanager
async def background(work: Coroutine[None, None, None], name: str) -> AsyncIterator[None]:
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_tell_of_death)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _tell_of_death(task: "asyncio.Task[None]") -> None:
    """Such work is to go on for as long as the process, which would be half dead else, and nobody knew."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("background.died", work=task.get_name(), exc_info=error)
