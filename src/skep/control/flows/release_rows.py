"""The rows of a release: its replicas and their containers, disks, snapshots; and those it leaves behind."""

from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.naming import fingerprint
from skep.control.plans.plans import Plan, ReplicaChange
from skep.model.ids import AppId, DiskId, NetworkId, PortId
from skep.store import disks, networks, replicas, snapshots
from skep.store.apps import AppRow
from skep.store.disks import DiskRow
from skep.store.releases import ReleaseRow
from skep.store.replicas import ContainerRow, ReplicaRow
from skep.store.snapshots import SnapshotRow

NEW = ("create", "stand-in")
"""Actions that make a replica."""


def updated(plan: Plan) -> list[ReplicaChange]:
    """Replicas that stay and get another container."""
    return [change for change in plan.replicas if change.action == "update"]


async def insert_disks(tx: AsyncConnection, plan: Plan, row: ReleaseRow) -> None:
    arriving = {move.target for move in plan.moves if move.copied}
    data = [
        DiskRow(
            id=disk.id,
            tenant_id=row.tenant_id,
            app_id=row.app_id,
            name=disks.beside(disk.name, disk.id) if disk.id in arriving else disk.name,
            kind="data",
            size=disk.size,
            host=disk.host,
            created=row.created,
            side=disks.ARRIVING if disk.id in arriving else "",
        )
        for disk in plan.disks
    ]
    system = [
        DiskRow(
            id=change.system_disk,
            tenant_id=row.tenant_id,
            app_id=row.app_id,
            name=change.system_disk,
            kind="system",
            size=change.new_system_disk,
            host=change.host,
            created=row.created,
        )
        for change in plan.replicas
        if change.system_disk is not None and change.new_system_disk is not None
    ]
    await disks.insert(tx, data + system)
    for move in plan.moves:
        if not move.copied:
            await disks.set_side(tx, move.target, move.name, disks.ARRIVING)
    external = {volume.external for volume in row.spec.volumes.values()}
    wanted = {name for change in plan.replicas for name in change.disks} - external
    waiting = [disk for disk in await disks.every(tx, row.tenant_id) if disk.app_id is None]
    await disks.set_app(tx, [disk.id for disk in waiting if disk.name in wanted], row.app_id)


async def leave_again(tx: AsyncConnection, plan: Plan) -> None:
    """What the app had left, and was to have again, waits where it is."""
    for move in plan.moves:
        if not move.copied:
            await disks.set_side(tx, move.target, move.name, disks.LEFT)


async def change_disks(tx: AsyncConnection, plan: Plan) -> None:
    """The disks over there are the app's; those that it had are left."""
    for move in plan.moves:
        await disks.set_side(tx, move.source, move.name, disks.LEFT)
        await disks.set_side(tx, move.target, move.name, "")


async def insert_replicas(tx: AsyncConnection, plan: Plan, row: ReleaseRow) -> None:
    created = [change for change in plan.replicas if change.action in NEW]
    staying = updated(plan)
    await replicas.insert(
        tx,
        [
            ReplicaRow(
                id=change.replica,
                tenant_id=row.tenant_id,
                app_id=row.app_id,
                service_id=plan.services[change.service],
                service=change.service,
                ordinal=change.ordinal,
                host=change.host,
                container_id=change.container,
                desired="running",
                created=row.created,
                weight=0,
                stand_in=change.action == "stand-in",
            )
            for change in created
        ],
    )
    await replicas.insert_containers(tx, [_container(change, row) for change in created + staying])
    await replicas.set_desired(tx, [change.replica for change in staying], "running")


async def insert_snapshots(tx: AsyncConnection, plan: Plan, app: AppRow, now: float) -> None:
    """Of what the release before leaves; they are made when its containers have stopped."""
    new = [
        SnapshotRow(
            id=one.id,
            tenant_id=app.tenant_id,
            disk_id=one.disk,
            release_id=app.release_id,
            host=change.host,
            created=now,
        )
        for change in plan.replicas
        for one in change.snapshots
    ]
    await snapshots.insert(tx, new)


def _container(change: ReplicaChange, row: ReleaseRow) -> ContainerRow:
    if change.system_disk is None:
        raise ValueError(f"the plan gives {change.name} no system disk")
    return ContainerRow(
        id=change.container,
        tenant_id=row.tenant_id,
        replica_id=change.replica,
        release_id=row.id,
        system_disk=change.system_disk,
        fingerprint=fingerprint(row.spec, change.service, row.images[change.service].digest),
        created=row.created,
    )


def new_ports(plan: Plan) -> list[PortId]:
    """Ports that this plan made: those of new replicas, and new ones of replicas that stay."""
    return [port.id for change in plan.replicas for port in change.ports if port.new]


def new_system_disks(plan: Plan) -> list[DiskId]:
    return [
        change.system_disk
        for change in plan.replicas
        if change.system_disk is not None and change.new_system_disk is not None
    ]


async def unused_networks(tx: AsyncConnection, plan: Plan) -> list[NetworkId]:
    """Networks the plan made, without the tenant's own that others may use by now."""
    return [network.id for network in plan.networks if not await networks.ports_of(tx, network=network.id)]


async def obsolete_ports(tx: AsyncConnection, plan: Plan, app: AppId) -> list[PortId]:
    """Ports of removed replicas, and of networks that an updated replica left."""
    removed = {change.replica for change in plan.replicas if change.action == "remove"}
    removed |= {change.replaces for change in plan.replicas if change.replaces is not None}
    kept = {
        change.replica: {port.id for port in change.ports}
        for change in plan.replicas
        if change.action == "update"
    }
    return [
        port.id
        for port in await networks.ports_of(tx, app=app)
        if port.replica_id in removed or (port.replica_id in kept and port.id not in kept[port.replica_id])
    ]
