"""The flow engine of an installation with what is around it: bundles, schedules, the archive, metrics."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from skep.bus.stamps import Stamp, stamped
from skep.flow import Database, FlowEngine, Registry, RunRecord
from skep.flow.bundles.bundles import Bundles
from skep.flow.bundles.loading import VersionLoader
from skep.flow.bundles.plugins import add_entry_points
from skep.flow.bundles.refusals import BundleRefused
from skep.flow.execution.attempt import Call, Outcome
from skep.flow.monitoring.metrics import Metrics
from skep.flow.monitoring.spans import Spans, is_traced
from skep.flow.schedules import Schedules
from skep.flow.storage.retention import Archivist
from skep.flow.storage.retention_policy import RetentionPolicy
from skep.model.errors import InvalidInput

CONCURRENCY = 128
"""Steps under way at once: most of them wait, for a container to begin or to be ready."""
CAPACITY = 10_000
"""Runs in memory of a process that carries them out."""


@dataclass(frozen=True)
class FlowRoom:
    flows: FlowEngine
    bundles: Bundles
    schedules: Schedules
    metrics: Metrics
    clock: Callable[[], float]
    """Seconds since 1970, as the engine counts them."""


@asynccontextmanager
async def flow_room(
    database: Database,
    registry: Registry,
    environments: Callable[[str], object],
    ended: Callable[[RunRecord], None],
    *,
    cache: Path,
    retention: RetentionPolicy,
    unconfined: bool = False,
    shared: bool = False,
    works: bool = True,
    name: str = "",
    grace: float = 5.0,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[FlowRoom]:
    """Runs go on from where they were, and everything that happens by itself does.

    `cache`: where the code of bundles is unpacked.  `ended` is told of each run that ends.  `unconfined`: run
    plug-ins without confinement where the system permits none.  `shared`: other processes have the database,
    too; one that does not `work` starts and steers runs that the others carry out.  `name` says which process
    this is.  `clock`: seconds since 1970.

    Raises:
        InvalidInput: a plug-in that is installed beside skep has faults.
    """
    loader = VersionLoader(with_plugins(registry), cache, unconfined=unconfined)
    async with AsyncExitStack() as stack:
        bundles = await stack.enter_async_context(Bundles(database, registry, loader, clock=clock))
        spans = Spans() if is_traced() else None
        flows = FlowEngine(
            *(database, bundles.registry, environments),
            create_tables=False,
            shared=shared,
            name=name,
            concurrency=CONCURRENCY,
            capacity=CAPACITY if works else 0,
            grace=grace,
            clock=clock,
            prepare=bundles.prepare,
            dispatch=spans.around(in_its_name) if spans else in_its_name,
            observers=[spans] if spans else [],
        )
        metrics = Metrics(flows, database)
        flows.add_observer(metrics)
        flows.on_end(ended)
        bundles.on_unload(flows.forget_code)
        await stack.enter_async_context(flows)
        metrics.lag.start()
        stack.callback(metrics.lag.stop)
        schedules = Schedules(database, flows, clock)
        works_by_itself = [schedules.run(), Archivist(database, retention, clock).run()] if works else []
        if shared:
            works_by_itself.append(bundles.watch())
        for work in works_by_itself:
            stack.push_async_callback(_ended, asyncio.create_task(work))
        yield FlowRoom(flows, bundles, schedules, metrics, clock)


async def in_its_name(call: Call) -> Outcome:
    """Here and now; what the step asks of hosts bears its stamp, by which they refuse who was replaced."""
    context = call.context
    stamp = Stamp(
        run=context.run,
        step=context.step,
        epoch=context.epoch,
        round=context.round,
        undoing=context.undoing,
        attempt=context.attempt,
    )
    with stamped(stamp):
        return await call()


def with_plugins(registry: Registry) -> Registry:
    """The registry, with the steps and flows of what is installed beside skep."""
    try:
        return add_entry_points(registry)
    except BundleRefused as error:
        raise InvalidInput(f"A plug-in cannot be used; repair or uninstall it: {error}") from error


async def _ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
