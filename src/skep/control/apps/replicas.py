"""Replicas: look at them, read their logs, run a command in them."""

from collections.abc import AsyncIterator

from skep.control.apps import app_views
from skep.control.callers import Caller
from skep.control.host_directory import HostDirectory
from skep.control.plans import facts
from skep.control.ports import ExecSession
from skep.flow import Database
from skep.model.errors import NotFound, SkepError, Unsupported
from skep.model.host import ContainerUsage, ExecSpec, LogLine
from skep.model.ids import Bytes
from skep.model.views.apps import ReplicaView, UsageView
from skep.store import apps, replicas
from skep.store.replicas import ReplicaRow

_NOTHING = ContainerUsage(cpu_seconds=0.0, memory=Bytes(0), memory_limit=None, pids=0)


class Replicas:
    """A replica is named as in its app: `web-0`; a bare service name means its first replica."""

    def __init__(self, database: Database, hosts: HostDirectory) -> None:
        self._database = database
        self._hosts = hosts

    async def show(self, caller: Caller, app: str, replica: str) -> ReplicaView:
        found = await self._find(caller, app, replica)
        views = await self.list(caller, app)
        return next(view for view in views if view.id == found.id)

    async def logs(
        self,
        caller: Caller,
        app: str,
        replica: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: str | None = None,
    ) -> AsyncIterator[LogLine]:
        """The lines the current container wrote, oldest first."""
        row = await self._find(caller, app, replica)
        host = await self._hosts.answering(row.host)
        lines = host.engine.logs(row.container_id, follow=follow, tail=tail, since=since)
        async for line in lines:
            yield line

    async def exec(self, caller: Caller, app: str, replica: str, spec: ExecSpec) -> ExecSession:
        caller.must_change()
        row = await self._find(caller, app, replica)
        host = await self._hosts.answering(row.host)
        return await host.engine.exec(row.container_id, spec)

    async def usage(self, caller: Caller, app: str | None = None) -> list[UsageView]:
        """What running replicas use; one that ends meanwhile is left out, one that nobody measures is not."""
        async with self._database.read() as connection:
            record = await facts.load_app(connection, caller.tenant, app) if app else None
            rows = await replicas.find(
                connection, tenant=caller.tenant, app=record.app.id if record else None
            )
            names = {row.id: row.name for row in await apps.every(connection, caller.tenant)}
            containers = {row.id: row for row in await replicas.containers_of(connection)}
        views = []
        for row in rows:
            unmeasured = ""
            try:
                host = await self._hosts.answering(row.host)
                usage = await host.engine.usage(row.container_id)
            except Unsupported as error:
                usage, unmeasured = _NOTHING, error.message
            except SkepError:
                continue
            container = containers.get(row.container_id)
            disks = await host.disks.list()
            disk = disks.get(container.system_disk) if container else None
            views.append(
                UsageView(
                    replica=f"{names.get(row.app_id, '')}/{row.name}",
                    cpu_seconds=usage.cpu_seconds,
                    memory=usage.memory,
                    memory_limit=usage.memory_limit,
                    pids=usage.pids,
                    disk=disk.used if disk else Bytes(0),
                    disk_size=disk.size if disk else Bytes(0),
                    unmeasured=unmeasured,
                )
            )
        return views

    async def list(self, caller: Caller, app: str | None = None) -> list[ReplicaView]:
        async with self._database.read() as connection:
            if app is not None:
                record = await facts.load_app(connection, caller.tenant, app)
                chosen = [record.app]
            else:
                chosen = await apps.every(connection, caller.tenant)
            scenes = await app_views.scenes(connection, chosen)
            return [view for seen in scenes for view in await app_views.replicas_of(connection, seen)]

    async def _find(self, caller: Caller, app: str, replica: str) -> ReplicaRow:
        async with self._database.read() as connection:
            record = await facts.load_app(connection, caller.tenant, app)
            rows = await replicas.find(connection, app=record.app.id)
        for row in rows:
            if replica in (row.name, row.service):
                return row
        raise NotFound(f"App {app!r} has no replica {replica!r}; see 'skep ps {app}'.")
