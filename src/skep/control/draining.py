"""Emptying a host: what has no data there is made again elsewhere, with its name, addresses and MACs.

One run per app, so that a failure of one undoes nothing of another.  Replicas with data stay, and are named:
moving data is another matter, and `--force` would be a way to lose it.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control import facts
from skep.control.changes import Overtaken, claim
from skep.control.flows import documents
from skep.control.placing import group_of
from skep.control.plans import Move, found
from skep.control.settings import Settings
from skep.flow import Database, FlowEngine
from skep.model.errors import Conflict, Exhausted
from skep.model.ids import AppId, ContainerId, DiskId, HostName
from skep.model.names import ServiceName
from skep.model.spec import AppSpec, ServiceSpec
from skep.schedule.placement import Cluster
from skep.store import apps, releases, replicas
from skep.store.apps import AppRow
from skep.store.replicas import ReplicaRow


class Staying(msgspec.Struct, frozen=True, kw_only=True):
    replica: str
    """`shop/db-0`."""
    reason: str


class Drained(msgspec.Struct, frozen=True, kw_only=True):
    """`runs` move what can go now; what stays, for the time being or until somebody acts, says why."""

    runs: tuple[str, ...] = ()
    staying: tuple[Staying, ...] = ()


class Draining:
    def __init__(
        self, database: Database, flows: FlowEngine, settings: Settings, new_id: Callable[[], str]
    ) -> None:
        self._database = database
        self._flows = flows
        self._settings = settings
        self._new_id = new_id

    async def move_off(self, host: HostName) -> Drained:
        """Start moving what can go; may be repeated: what is under way already is left alone."""
        runs: list[str] = []
        staying: list[Staying] = []
        async with self._database.read() as connection:
            cluster = await facts.cluster(connection, self._settings.limits.memory)
            of_apps: dict[AppId, list[ReplicaRow]] = {}
            for row in await replicas.on_host(connection, host):
                of_apps.setdefault(row.app_id, []).append(row)
            work = [await self._moves(connection, cluster, app, rows) for app, rows in of_apps.items()]
        for app, spec, moves, stay in work:
            staying += stay
            if moves:
                try:
                    runs.append(await self._start(app, spec, moves, host))
                except (Conflict, Overtaken):
                    staying += [_staying(app, move.replica, "its app is being changed") for move in moves]
        return Drained(runs=tuple(runs), staying=tuple(staying))

    async def _start(self, app: AppRow, spec: AppSpec, moves: list[Move], host: HostName) -> str:
        names = ", ".join(move.replica.name for move in moves[:5])
        return await self._flows.start(
            self._flows.parse(documents.relocate(app.id, spec, moves)),
            {},
            tenant=app.tenant_id,
            title=f"move {app.name}/{names} off host {host}",
            labels={"app": app.id, "drain": host},
            transaction=partial(claim, flows=self._flows, app=app),
        )

    async def _moves(
        self, connection: AsyncConnection, cluster: Cluster, app: AppId, rows: list[ReplicaRow]
    ) -> tuple[AppRow, AppSpec, list[Move], list[Staying]]:
        row = await apps.get(connection, app)
        release = await releases.get(connection, row.release_id) if row and row.release_id else None
        if row is None:
            raise ValueError(f"replicas of app {app}, which has no row")
        spec = release.spec if release else AppSpec(name=row.name, services={})
        busy = await self._flows.list(labels={"app": app}, active=True, limit=1)
        reasons = {
            one.id: f"run {busy[0].id} is changing its app" if busy else _stays(one, spec) for one in rows
        }
        staying = [_staying(row, one, reasons[one.id]) for one in rows if reasons[one.id]]
        everywhere = await replicas.find(connection, app=app)
        moves: list[Move] = []
        for service in dict.fromkeys(one.service for one in rows):
            going = [one for one in rows if one.service == service and not reasons[one.id]]
            try:
                moves += self._targets(cluster, spec, row, going, everywhere)
            except Exhausted as error:
                staying += [_staying(row, one, error.message) for one in going]
        return row, spec, moves, staying

    def _targets(
        self,
        cluster: Cluster,
        spec: AppSpec,
        app: AppRow,
        going: list[ReplicaRow],
        everywhere: list[ReplicaRow],
    ) -> list[Move]:
        """Raises Exhausted: they fit nowhere else."""
        if not going:
            return []
        leaving = {one.id for one in going}
        service = going[0].service
        others: Mapping[HostName, int] = Counter(
            one.host for one in everywhere if one.service == service and one.id not in leaving
        )
        group = group_of(
            *(spec, ServiceName(service), app.tenant_id, len(going), others),
            self._settings.limits.memory,
        )
        return [
            Move(
                replica=one,
                target=target,
                container=ContainerId(self._new_id()),
                disk=DiskId(self._new_id()),
            )
            for one, target in zip(going, cluster.place(group), strict=True)
        ]


def _staying(app: AppRow, row: ReplicaRow, reason: str) -> Staying:
    return Staying(replica=f"{app.name}/{row.name}", reason=reason)


def _stays(row: ReplicaRow, spec: AppSpec) -> str:
    """Why a replica cannot be made again elsewhere; "" if it can."""
    service = spec.services.get(ServiceName(row.service))
    if service is None:
        return "its app has no release that is current"
    if found(row) == "ended":
        return "it has ended; making it again would do its job twice"
    return has_data(service)


def has_data(service: ServiceSpec) -> str:
    """What its replicas have on their host, in words; "" if nothing."""
    kinds = {mount.type for mount in service.mounts}
    if "volume" in kinds:
        return "its data disks are on this host"
    if "bind" in kinds:
        return "it uses paths of this host"
    return "it keeps its system disk" if service.x_skep.keep_system_disk else ""
