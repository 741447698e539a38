"""Emptying a host: what has no data there is made again elsewhere, with its name, addresses and MACs.

One run per app, so that a failure of one undoes nothing of another.  Replicas with data stay, and are named:
moving data is another matter, and `--force` would be a way to lose it.

A host that is off for sure (`fenced`) is emptied likewise, and nothing is asked of it.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.apps.changes import Overtaken, claim
from skep.control.flows import documents
from skep.control.plans import facts
from skep.control.plans.comparing import found
from skep.control.plans.placing import group_of
from skep.control.plans.plans import Move
from skep.control.settings import Settings
from skep.flow import Database, FlowEngine
from skep.model.errors import Conflict, Exhausted
from skep.model.ids import AppId, ContainerId, DiskId, HostName
from skep.model.names import ServiceName
from skep.model.spec import AppSpec, ServiceSpec
from skep.schedule.placement import Cluster
from skep.store import apps, hosts, releases, replicas
from skep.store.apps import AppRow
from skep.store.hosts import HostRow
from skep.store.replicas import ReplicaRow


class Staying(msgspec.Struct, frozen=True, kw_only=True):
    """`waits`: it goes by itself as soon as it can; otherwise somebody must act."""

    replica: str
    """`shop/db-0`."""
    reason: str
    waits: bool = False


class Drained(msgspec.Struct, frozen=True, kw_only=True):
    """`runs` move what can go now; what stays, for the time being or until somebody acts, says why."""

    runs: tuple[str, ...] = ()
    staying: tuple[Staying, ...] = ()


class _Leaving(msgspec.Struct, kw_only=True):
    """What is to become of an app's replicas on the host."""

    app: AppRow
    spec: AppSpec
    moves: list[Move] = msgspec.field(default_factory=list)
    staying: list[Staying] = msgspec.field(default_factory=list)

    def stays(self, row: ReplicaRow, reason: str, *, waits: bool = False) -> None:
        self.staying.append(Staying(replica=f"{self.app.name}/{row.name}", reason=reason, waits=waits))


def everything(_app: AppId) -> bool:
    """Every app may go."""
    return True


class Draining:
    def __init__(
        self, database: Database, flows: FlowEngine, settings: Settings, new_id: Callable[[], str]
    ) -> None:
        self._database = database
        self._flows = flows
        self._settings = settings
        self._new_id = new_id

    async def move_off(self, host: HostName, may: Callable[[AppId], bool] = everything) -> Drained:
        """Start moving what can go, of apps that `may`; to repeat it leaves alone what is under way."""
        runs: list[str] = []
        row, work = await self._look(host)
        for leaving in work:
            if leaving.moves and may(leaving.app.id):
                try:
                    runs.append(await self._start(leaving, row))
                except (Conflict, Overtaken):
                    for move in leaving.moves:
                        leaving.stays(move.replica, "its app is being changed", waits=True)
        staying = tuple(one for leaving in work for one in leaving.staying)
        return Drained(runs=tuple(runs), staying=staying)

    async def outlook(self, host: HostName) -> list[Staying]:
        """Of all that is still on the host, why; nothing is begun."""
        _, work = await self._look(host)
        for leaving in work:
            for move in leaving.moves:
                leaving.stays(move.replica, f"it is about to move to host {move.target}", waits=True)
        return [one for leaving in work for one in leaving.staying]

    async def _look(self, host: HostName) -> tuple[HostRow, list[_Leaving]]:
        async with self._database.read() as connection:
            row = await hosts.get(connection, host)
            if row is None:
                raise ValueError(f"host {host} has no row")
            cluster = await facts.cluster(connection, self._settings.limits.memory)
            of_apps: dict[AppId, list[ReplicaRow]] = {}
            for replica in await replicas.on_host(connection, host):
                of_apps.setdefault(replica.app_id, []).append(replica)
            return row, [
                await self._moves(connection, cluster, row, app, rows) for app, rows in of_apps.items()
            ]

    async def _start(self, leaving: _Leaving, host: HostRow) -> str:
        app, names = leaving.app, ", ".join(move.replica.name for move in leaving.moves[:5])
        dead = host.fenced is not None
        document = documents.relocate(app.id, leaving.spec, leaving.moves, dead=dead)
        return await self._flows.start(
            self._flows.parse(document),
            {},
            tenant=app.tenant_id,
            title=f"move {app.name}/{names} off host {host.name}",
            labels={"app": app.id, "drain": host.name},
            before=partial(claim, flows=self._flows, app=app),
        )

    async def _moves(
        self,
        connection: AsyncConnection,
        cluster: Cluster,
        host: HostRow,
        app: AppId,
        rows: list[ReplicaRow],
    ) -> _Leaving:
        row = await apps.get(connection, app)
        release = await releases.get(connection, row.release_id) if row and row.release_id else None
        if row is None:
            raise ValueError(f"replicas of app {app}, which has no row")
        leaving = _Leaving(app=row, spec=release.spec if release else AppSpec(name=row.name, services={}))
        busy = await self._flows.list(labels={"app": app}, active=True, limit=1)
        going: dict[str, list[ReplicaRow]] = {}
        for one in rows:
            if busy:
                leaving.stays(one, f"run {busy[0].id} is changing its app", waits=True)
            elif reason := _stays(one, leaving, host):
                leaving.stays(one, reason)
            else:
                going.setdefault(one.service, []).append(one)
        everywhere = await replicas.find(connection, app=app)
        for chosen in going.values():
            try:
                leaving.moves += self._targets(cluster, leaving, chosen, everywhere)
            except Exhausted as error:
                for one in chosen:
                    leaving.stays(one, error.message, waits=True)
        return leaving

    def _targets(
        self, cluster: Cluster, leaving: _Leaving, going: list[ReplicaRow], everywhere: list[ReplicaRow]
    ) -> list[Move]:
        """Raises Exhausted: they fit nowhere else."""
        away = {one.id for one in going}
        service = going[0].service
        others: Mapping[HostName, int] = Counter(
            one.host for one in everywhere if one.service == service and one.id not in away
        )
        group = group_of(
            *(leaving.spec, ServiceName(service), leaving.app.tenant_id, len(going), others),
            self._settings.limits.memory,
            cluster.cluster_of(going[0].host),
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


def _stays(row: ReplicaRow, leaving: _Leaving, host: HostRow) -> str:
    """Why a replica cannot be made again elsewhere; "" if it can."""
    app = leaving.app
    service = leaving.spec.services.get(ServiceName(row.service))
    if app.removing:
        return "its app is being removed"
    if service is None:
        return "its app has no release that is current"
    if found(row) == "ended":
        return "it has ended; making it again would do its job twice"
    kept = has_data(service)
    if not kept or host.fenced is None:
        return kept
    return (
        f"{kept}. Bring the host back with its disks (skep host add {host.name} --zone {host.zone} --again), "
        f"or give them up: skep rm {app.name} --volumes, and apply it again"
    )


def has_data(service: ServiceSpec) -> str:
    """What its replicas have on their host, in words; "" if nothing."""
    kinds = {mount.type for mount in service.mounts}
    if "volume" in kinds:
        return "its data disks are on this host"
    if "bind" in kinds:
        return "it uses paths of this host"
    return "it keeps its system disk" if service.x_skep.keep_system_disk else ""
