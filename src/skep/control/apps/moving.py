"""Moving an app as a whole: to a cluster, out of it, between zones; and until that is confirmed, back.

A move is a release of what the app is, with another home (`plans/moves.py`).  What stays behind are its data
disks, marked as left: nothing uses them, until a confirmation removes them or the app comes back to them.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial

from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.apps import changes
from skep.control.apps.apps import Apps
from skep.control.apps.planner import Planner
from skep.control.apps.wanted import Wanted
from skep.control.callers import Caller
from skep.control.flows import documents
from skep.control.host_directory import HostDirectory
from skep.control.plans import facts, moves
from skep.control.plans.facts import AppRecord
from skep.control.plans.plans import Destination, Facts, Plan
from skep.control.settings import Settings
from skep.flow import Database, FlowEngine
from skep.model.errors import Conflict, InvalidInput, NotFound, SkepError
from skep.model.host import DiskUsage
from skep.model.ids import DiskId, HostName, NetworkId, ZoneName
from skep.model.spec import AppSpec
from skep.model.views.base import Accepted
from skep.model.views.moves import MovedDisk, MovedImage, MovedReplica, MoveOrder, MovePlan
from skep.store import clusters, disks, hosts, networks, replicas
from skep.store.disks import DiskRow


class Moving:
    def __init__(
        self,
        database: Database,
        flows: FlowEngine,
        directory: HostDirectory,
        apps: Apps,
        settings: Settings,
        new_id: Callable[[], str],
    ) -> None:
        self._database = database
        self._flows = flows
        self._directory = directory
        self._apps = apps
        self._planner = Planner(database, settings, new_id)

    async def plan(self, caller: Caller, app: str, order: MoveOrder) -> MovePlan:
        """What a move would do; changes nothing.  Raises: as `start`."""
        wanted = await self._wanted(caller, app, order)
        plan, found, _ = await self._planner.plan(caller, wanted)
        used = await self._used({move.source_host for move in plan.moves})
        return _shown(plan, found, wanted.spec, used)

    async def start(self, caller: Caller, app: str, order: MoveOrder) -> Accepted:
        """Move the app.  What its disks held stays where it was until `confirm`.

        Raises:
            NotFound: there is no such zone.
            Conflict: it is there already, has what cannot be carried, or its last move is not confirmed.
            Unsupported: the cluster does not have what a service asks for.
            Exhausted: there is no room, or the quota is used up.
        """
        caller.must_change()
        return await self._apps.release(caller, app, partial(self._wanted, caller, app, order))

    async def confirm(self, caller: Caller, app: str) -> Accepted:
        """Remove what the app left behind.  Raises Conflict: it left nothing, or is being changed."""
        caller.must_change()

        async def attempt() -> Accepted:
            async with self._database.read() as connection:
                record = await facts.load_app(connection, caller.tenant, app)
                left = moves.left_in(await disks.every(connection, app=record.app.id))
                if not left:
                    raise _nothing_left(app)
                off = {row.name for row in await hosts.every(connection) if row.fenced is not None}
                unused = await _networks_left(connection, record, left)
            await changes.require_quiet(self._flows, record.app)
            document = documents.forsake(record.app.id, disks=left, networks=unused, off=off)
            run = await self._flows.start(
                self._flows.parse(document),
                {},
                tenant=record.app.tenant_id,
                title=f"confirm the move of {app}",
                labels={"app": record.app.id},
                before=partial(changes.claim, flows=self._flows, app=record.app),
            )
            return Accepted(run=run)

        return await changes.settled(app, attempt)

    async def _wanted(self, caller: Caller, app: str, order: MoveOrder) -> Wanted:
        _must_be_clear(app, order)
        async with self._database.read() as connection:
            record = await facts.load_app(connection, caller.tenant, app)
            left = moves.left_in(await disks.every(connection, app=record.app.id))
            if order.back:
                destination = await _back(connection, record, left)
            elif left:
                raise Conflict(
                    f"App {app!r} was moved before, and what it left is still there: say 'skep app move "
                    f"{app} --confirm' or '--back' first."
                )
            else:
                destination = await _to(connection, order.to_zone)
        if record.release is None:
            raise Conflict(f"App {app!r} has no release in force yet; see 'skep run ls {app}'.")
        return Wanted(
            spec=moves.rehomed(record.release.spec, destination),
            images=record.release.images,
            base=record.app.version,
            note=f"move to {destination.words}",
            verb="move",
            destination=destination,
            keep_new=order.data != "drop",
        )

    async def _used(self, names: Iterable[HostName]) -> dict[DiskId, DiskUsage]:
        """Of the hosts that answer, and know it."""
        usage: dict[DiskId, DiskUsage] = {}
        for name in names:
            with suppress(SkepError):
                usage |= await (await self._directory.answering(name)).disks.list()
        return usage


def _must_be_clear(app: str, order: MoveOrder) -> None:
    if order.back == bool(order.to_zone):
        raise InvalidInput("Say where to move: to a zone, or back; and not both.")
    if order.data and not order.back:
        raise InvalidInput("What was written since it moved is kept or dropped on the way back only.")
    if order.back and not order.data:
        raise InvalidInput(
            f"App {app!r} has run since it moved, and may have written to its disks: say 'skep app move "
            f"{app} --back --keep-new-data', or '--back --drop-new-data' to have its disks as it left them."
        )


async def _to(connection: AsyncConnection, zone: str) -> Destination:
    if zone not in {row.name for row in await hosts.every_zone(connection)}:
        raise NotFound(f"There is no zone {zone[:60]!r}; see 'skep zone ls'.")
    on_clusters = {row.zone for row in await clusters.every(connection)}
    return Destination(zones=(ZoneName(zone),), cluster=zone in on_clusters)


async def _back(connection: AsyncConnection, record: AppRecord, left: list[DiskRow]) -> Destination:
    """To where it left disks last, other than where it is."""
    zones = {row.name: row.zone for row in await hosts.every(connection)}
    now = {zones[row.host] for row in await replicas.find(connection, app=record.app.id)}
    there = [zones[disk.host] for disk in left if zones[disk.host] not in now]
    if not there:
        raise _nothing_left(record.app.name)
    on_clusters = {row.zone for row in await clusters.every(connection)}
    if there[-1] in on_clusters:
        return Destination(zones=(there[-1],), cluster=True)
    return Destination(zones=tuple(sorted({zone for zone in there if zone not in on_clusters})))


async def _networks_left(
    connection: AsyncConnection, record: AppRecord, left: Iterable[DiskRow]
) -> list[tuple[NetworkId, HostName]]:
    """The app's own networks on hosts that it left, where nobody is on them."""
    places = {row.id: row.host for row in await replicas.find(connection)}
    found = []
    for network in await networks.every(connection, record.app.tenant_id):
        if network.app_id == record.app.id:
            used = {
                places[port.replica_id] for port in await networks.ports_of(connection, network=network.id)
            }
            found += [(network.id, host) for host in sorted({disk.host for disk in left} - used)]
    return found


def _nothing_left(app: str) -> Conflict:
    return Conflict(
        f"App {app!r} has left nothing anywhere: there is nothing to confirm or to come back to. It moves "
        f"with 'skep app move {app} --to-zone ZONE'."
    )


def _shown(plan: Plan, found: Facts, spec: AppSpec, used: dict[DiskId, DiskUsage]) -> MovePlan:
    known = {info.digest: (name, info) for name, info in plan.images.items()}
    return MovePlan(
        app=spec.name,
        source=tuple(moves.zones_now(found)),
        target=plan.destination.zones if plan.destination else (),
        revision=plan.revision,
        images=tuple(
            MovedImage(service=name, image=spec.services[name].image, digest=digest, size=info.size)
            for digest, (name, info) in known.items()
        ),
        disks=tuple(
            MovedDisk(
                name=move.name,
                size=found.moving[move.name].size,
                used=used[move.source].used if move.source in used else None,
                source=move.source_host,
                target=move.target_host,
                copied=move.copied,
            )
            for move in plan.moves
        ),
        replicas=tuple(
            MovedReplica(replica=change.name, source=change.previous_host or "", target=change.host)
            for change in plan.replicas
        ),
        stop=_stop(plan),
        warnings=plan.remarks,
    )


def _stop(plan: Plan) -> str:
    if not plan.moves:
        return ""
    if not any(move.copied for move in plan.moves):
        return "from when it stops here until it is ready over there"
    return (
        "while what has changed on its disks since they were copied follows, and until it is ready over "
        "there; it runs through the copy itself"
    )
