"""Whoever follows a run hears why a container keeps it waiting, as soon as its host knows."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from skep.control.flows.environment import OnHost
from skep.model.errors import SkepError
from skep.model.host import ContainerState, ContainerStatus, Health
from skep.model.ids import ContainerId

_LOOK = 3.0
"""Seconds between two looks; of what is over before then nothing is said."""


def why(status: ContainerStatus) -> str:
    """Why it is not ready, as far as its host can tell; "" if there is nothing to say."""
    if status.error:
        return status.error
    if status.state is ContainerState.RESTARTING and status.exit_code is not None:
        memory = ", out of memory," if status.oom_killed else ""
        return f"It ended with exit code {status.exit_code}{memory} and is started again."
    if status.state is ContainerState.RUNNING and status.health is not Health.HEALTHY:
        return f"Its health check says: {status.health_output}" if status.health_output else ""
    return ""


def ending(status: ContainerStatus) -> str:
    """Why it has not ended, as far as its host can tell."""
    return "" if status.state is ContainerState.EXITED else status.error


@contextlib.asynccontextmanager
async def telling(
    cx: OnHost, container: ContainerId, words: Callable[[ContainerStatus], str] = why
) -> AsyncIterator[list[str]]:
    """Meanwhile what keeps the container is told, whenever it is something else.  Answers the last of it."""
    last: list[str] = []
    loop = asyncio.get_running_loop()
    tellers: set[asyncio.Task[None]] = set()
    # Nearly all are ready before the first look: a timer is all that they cost.
    timer = loop.call_later(_LOOK, lambda: tellers.add(loop.create_task(_tell(cx, container, words, last))))
    try:
        yield last
    finally:
        timer.cancel()
        for teller in tellers:
            teller.cancel()


async def _tell(
    cx: OnHost, container: ContainerId, words: Callable[[ContainerStatus], str], last: list[str]
) -> None:
    while True:
        with contextlib.suppress(SkepError):  # whoever waits hears of it by itself
            found = words(await cx.env.host.engine.inspect(container))
            if found and [found] != last:
                last[:] = [found]
                cx.progress(found)
        await asyncio.sleep(_LOOK)
