"""What happens in a tenant, as it happens; and where hosts report what they saw."""

from collections.abc import AsyncIterator, Callable

from skep.bus.inprocess import InProcessBus
from skep.control.callers import Caller
from skep.control.clock import Now, rfc3339
from skep.flow import Database, RunRecord
from skep.model.host import ContainerStatus, Health
from skep.model.ids import AppId, ContainerId
from skep.model.views import EventView
from skep.store import apps, replicas

Bus = InProcessBus[EventView]


class Events:
    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def follow(self, caller: Caller, *, app: str | None = None) -> AsyncIterator[EventView]:
        """Changes of state of the tenant's apps, replicas and runs, from now on."""
        async with self._bus.subscribe(f"event.{caller.tenant}") as events:
            async for event in events:
                if app in (None, event.app):
                    yield event


class Observations:
    """Satisfies `ports.ContainerEvents`: records what hosts saw, tells the bus, wakes the reconcilers."""

    def __init__(self, database: Database, bus: Bus, wake: Callable[[], None], now: Now) -> None:
        self._database = database
        self._bus = bus
        self._wake = wake
        self._now = now

    async def observed(self, status: ContainerStatus) -> None:
        await self._database.write(lambda connection: replicas.set_status(connection, status))
        async with self._database.read() as connection:
            row = await replicas.get(connection, status.replica)
            app = await apps.get(connection, AppId(row.app_id)) if row else None
        if row is not None and app is not None and row.container_id == status.id:
            event = EventView(
                kind="replica",
                app=app.name,
                name=row.name,
                state=status.state.value,
                at=rfc3339(self._now()),
                message=_remark(status),
            )
            self._bus.publish(f"event.{row.tenant_id}.replica", event)
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
        self._bus.publish(f"event.{run.tenant}.run", event)
        self._wake()


def _remark(status: ContainerStatus) -> str:
    if status.oom_killed:
        return "killed: it used more memory than it may"
    if status.error:
        return status.error
    if status.exit_code is not None:
        return f"exit code {status.exit_code}"
    return "" if status.health is Health.NONE else status.health.value
