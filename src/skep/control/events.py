"""What happens in a tenant, as it happens; and where hosts report what they saw."""

from collections.abc import AsyncIterator, Callable
from functools import partial

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.bus.bus import Bus
from skep.control.callers import Caller
from skep.control.clock import Now, rfc3339
from skep.flow import Database, RunRecord
from skep.model.host import ContainerStatus, Health
from skep.model.ids import ContainerId, ReplicaId
from skep.model.views.apps import EventView
from skep.store import replicas
from skep.store.replicas import ReplicaOwner

_decoder = msgspec.json.Decoder(EventView)


class Events:
    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def follow(self, caller: Caller, *, app: str | None = None) -> AsyncIterator[EventView]:
        """Changes of state of the tenant's apps, replicas and runs, from now on."""
        async with self._bus.subscribe(f"event.{caller.tenant}") as events:
            async for found in events:
                event = _decoder.decode(found.body)
                if app in (None, event.app):
                    yield event


class Observations:
    """Satisfies `ports.ContainerEvents`: records what hosts saw, tells the bus, wakes the reconcilers.

    `changed` hears of every replica whose record may be another by now; it must not wait.
    """

    def __init__(
        self,
        database: Database,
        bus: Bus,
        wake: Callable[[], None],
        now: Now,
        changed: Callable[[ReplicaId], None] = lambda _: None,
    ) -> None:
        self._changed = changed
        self._database = database
        self._bus = bus
        self._wake = wake
        self._now = now

    def unfollowed(self) -> "Observations":
        """Of a host that sees by itself what follows from them, as clusters do."""
        return Observations(self._database, self._bus, self._wake, self._now)

    async def observed(self, status: ContainerStatus) -> None:
        owner = await self._database.write(partial(_record, status=status))
        if owner is not None:
            event = EventView(
                kind="replica",
                app=owner.app,
                name=owner.name,
                state=status.state.value,
                at=rfc3339(self._now()),
                message=_remark(status),
            )
            self._bus.publish(f"event.{owner.tenant_id}.replica", msgspec.json.encode(event))
            self._changed(status.replica)
        self._wake()

    async def removed(self, container: ContainerId) -> None:
        self._wake()

    def run_ended(self, run: RunRecord) -> None:
        """The flow engine's callback."""
        event = EventView(
            kind="run",
            app="",
            name=run.id,
            state=run.state.value,
            at=rfc3339(self._now()),
            message=f"{run.title}: {run.error}" if run.error else run.title,
        )
        self._bus.publish(f"event.{run.tenant}.run", msgspec.json.encode(event))
        self._wake()


async def _record(connection: AsyncConnection, status: ContainerStatus) -> ReplicaOwner | None:
    """None: the replica is gone, or has another container by now."""
    owner = await replicas.owner(connection, status.id)
    if owner is not None:
        await replicas.set_status(connection, status)
    return owner


def _remark(status: ContainerStatus) -> str:
    if status.oom_killed:
        return "killed: it used more memory than it may"
    if status.error:
        return status.error
    if status.exit_code is not None:
        return f"exit code {status.exit_code}"
    return "" if status.health is Health.NONE else status.health.value
