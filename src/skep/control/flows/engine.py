"""Steps that start and stop containers.  All run on the replica's host."""

import asyncio
import contextlib

from skep.control.flows.environment import OnHost
from skep.control.flows.waiting import ending, telling
from skep.flow import step
from skep.model.errors import NotFound, Unavailable
from skep.model.host import ContainerState
from skep.model.ids import ContainerId

BACK = 60.0
"""Seconds that a container which was brought back has to become ready."""


@step
async def start(cx: OnHost, container: ContainerId) -> None:
    """Make the container and start it; undone, nothing of it is left."""
    spec = await cx.env.desired.container(container)
    async with telling(cx, container):
        await cx.env.host.engine.start(spec)


@start.undo
async def _remove_started(cx: OnHost, container: ContainerId) -> None:
    await cx.env.host.engine.remove(container)


@step
async def resume(cx: OnHost, container: ContainerId, stopped: bool = True) -> None:
    """Start a container; undone, it is stopped again if it was `stopped` before."""
    spec = await cx.env.desired.container(container)
    async with telling(cx, container):
        await cx.env.host.engine.start(spec)


@resume.undo
async def _halt_resumed(cx: OnHost, container: ContainerId, stopped: bool = True) -> None:
    if stopped:
        await _stop_if_there(cx, container)


@step
async def halt(cx: OnHost, container: ContainerId, running: bool = True) -> None:
    """Stop the container and keep it; undone, it runs again, and is ready if it can, if it was `running`."""
    async with telling(cx, container, ending):
        await _stop_if_there(cx, container)


@halt.undo
async def _resume_halted(cx: OnHost, container: ContainerId, running: bool = True) -> None:
    if running:
        await cx.env.host.engine.start(await cx.env.desired.container(container))
        # Connections come back after this: as soon as it can take them, but it may have been unwell before.
        with contextlib.suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(BACK):
                await cx.env.host.engine.wait_ready(container)


@step
async def restart(cx: OnHost, container: ContainerId) -> None:
    """Stop and start; one that is not on its host is made again."""
    try:
        async with telling(cx, container, ending):
            await cx.env.host.engine.restart(container)
    except NotFound:
        await cx.env.host.engine.start(await cx.env.desired.container(container))


@step
async def ready(cx: OnHost, container: ContainerId) -> None:
    """Wait until the container is healthy (or runs, without a health check, or has done its one job).

    Raises:
        Unavailable: it became unhealthy or failed; the message ends with its last words.
    """
    try:
        async with telling(cx, container):
            await cx.env.host.engine.wait_ready(container)
    except Unavailable:
        status = await cx.env.host.engine.inspect(container)
        if status.state is not ContainerState.EXITED or status.exit_code != 0:
            raise


@step
async def completed(cx: OnHost, container: ContainerId) -> None:
    """Wait until the container has done its job (Compose: service_completed_successfully).

    Raises:
        Unavailable: it ended with another exit code than 0.
    """
    async with telling(cx, container):
        code = await cx.env.host.engine.wait_exit(container)
    if code != 0:
        spec = await cx.env.desired.container(container)
        raise Unavailable(
            f"{spec.name} was to complete, but exited with code {code}; see 'skep logs {spec.name}'."
        )


@step(retry=3)
async def remove(cx: OnHost, container: ContainerId) -> None:
    """Remove the container; one that is not there is success."""
    async with telling(cx, container, ending):
        await cx.env.host.engine.remove(container)


async def _stop_if_there(cx: OnHost, container: ContainerId) -> None:
    try:
        await cx.env.host.engine.stop(container)
    except NotFound:
        return
