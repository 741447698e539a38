"""Steps that write what a plan decided: the rows of a release, before and after its containers changed.

`claim` claims everything the plan needs (addresses, disks, published ports) in one transaction, so that
two apps can never be promised the same thing; its undo gives all of it back.  `finish` is the point of no
return: the release becomes the current one, and what it no longer needs loses its rows.  What has no row is
removed from the hosts by the reconciler of leftovers.
"""

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.endpoints import endpoints as endpoint_rules
from skep.control.flows.environment import Cloud
from skep.control.naming import fingerprint
from skep.control.networks import security_groups
from skep.control.networks.addresses import Addresses
from skep.control.plans import publications
from skep.control.plans.plans import Plan, ReplicaChange
from skep.control.telling import virtual_ips
from skep.control.telling.serving import FULL
from skep.flow import step
from skep.model.errors import Conflict, NotFound
from skep.model.ids import AppId, DiskId, NetworkId, PortId, ReleaseId, ServiceId, new_id
from skep.model.names import ServiceName
from skep.model.spec import AppSpec
from skep.store import apps, disks, endpoints, groups, networks, releases, replicas, snapshots
from skep.store import virtual_ips as virtual_ip_rows
from skep.store.apps import AppRow
from skep.store.disks import DiskRow
from skep.store.releases import ReleaseRow
from skep.store.replicas import ContainerRow, ReplicaRow, ServiceRow
from skep.store.snapshots import SnapshotRow
from skep.store.turns import Turn, take_turn

NEW = ("create", "stand-in")
"""Actions that make a replica."""


@step(kind="transactional")
async def begin(cx: Cloud, release: ReleaseId) -> None:
    """The release is under way; undone, it has failed, and an app that never had another is gone.

    Raises:
        Conflict: the app was changed since the plan was made.
    """
    _, app, plan = await _load(cx.tx, release)
    if app.version != plan.base_version:
        raise Conflict(f"App {app.name!r} was changed while this was being planned: apply again.")


@begin.undo
async def _abandon(cx: Cloud, release: ReleaseId) -> None:
    _, app, _ = await _load(cx.tx, release)
    await releases.set_state(cx.tx, release, "failed")
    if app.release_id is None:
        await apps.delete(cx.tx, app.id)


@step(kind="transactional")
async def claim(cx: Cloud, release: ReleaseId) -> None:
    """Claim what the release needs and make the rows of its replicas and containers.

    Raises:
        Conflict: a port is taken.
        Exhausted: a subnet is full.
    """
    await _claim(cx, release)


@claim.undo
async def _give_back(cx: Cloud, release: ReleaseId) -> None:
    await take_turn(cx.tx, Turn.CLAIMING)
    _, _, plan = await _load(cx.tx, release)
    if await _is_prepared(cx.tx, plan):
        await _take_back(cx.tx, plan)


@step(kind="transactional")
async def prepare(cx: Cloud, release: ReleaseId) -> None:
    """As claim, in documents of the release before: replicas have their new containers and serve at once."""
    await _claim(cx, release)
    _, _, plan = await _load(cx.tx, release)
    created = [change.replica for change in plan.replicas if change.action == "create"]
    await replicas.set_weights(cx.tx, dict.fromkeys(created, FULL))
    for change in _updated(plan):
        await replicas.set_container(cx.tx, change.replica, change.container)


@prepare.undo
async def _point_back(cx: Cloud, release: ReleaseId) -> None:
    await take_turn(cx.tx, Turn.CLAIMING)
    _, _, plan = await _load(cx.tx, release)
    if not await _is_prepared(cx.tx, plan):
        return
    for change in _updated(plan):
        if change.previous is not None:
            await replicas.set_container(cx.tx, change.replica, change.previous)
    await _take_back(cx.tx, plan)


async def _claim(cx: Cloud, release: ReleaseId) -> None:
    await take_turn(cx.tx, Turn.CLAIMING)
    row, app, plan = await _load(cx.tx, release)
    now = cx.env.now()
    addresses = Addresses(cx.tx, app.tenant_id, cx.env.networks, now)
    await addresses.add_networks(plan.networks, app.id)
    await replicas.insert_services(
        cx.tx,
        [
            ServiceRow(id=plan.services[name], tenant_id=app.tenant_id, app_id=app.id, name=name)
            for name in plan.new_services
        ],
    )
    await _join_groups(cx.tx, plan, row)
    await _insert_disks(cx.tx, plan, row)
    await _insert_replicas(cx.tx, plan, row)
    await _insert_snapshots(cx.tx, plan, app, now)
    await addresses.claim([(change.replica, port) for change in plan.replicas for port in change.ports])
    await addresses.claim_virtual_ips(await _led(cx.tx, row.spec, app))
    await _publish(cx.tx, plan, row)
    await _claim_endpoints(cx.tx, plan, row, now)
    started = [change.replica for change in plan.replicas if change.action == "start"]
    await replicas.set_desired(cx.tx, started, "running")


@step(kind="transactional")
async def finish(cx: Cloud, release: ReleaseId) -> None:
    """Make the release the current one; what only the one before needed loses its rows."""
    row, app, plan = await _load(cx.tx, release)
    removed = [change.replica for change in plan.replicas if change.action == "remove"]
    removed += [change.replaces for change in plan.replicas if change.replaces is not None]
    obsolete = [change.container for change in plan.replicas if change.action == "remove"]
    obsolete += [change.previous for change in plan.replicas if change.previous is not None]
    kept = {change.system_disk for change in plan.replicas if change.action != "remove"}
    containers = {container.id: container for container in await replicas.containers_of(cx.tx, app.id)}
    gone = {containers[name].system_disk for name in obsolete if name in containers} - kept
    await networks.delete_ports(cx.tx, await _obsolete_ports(cx.tx, plan, app.id))
    await replicas.delete_containers(cx.tx, obsolete)
    await replicas.delete(cx.tx, removed)
    await replicas.take_places(cx.tx, [row.replica for row in plan.replicas if row.action == "stand-in"])
    stays = publications.kept(plan, row.spec).values()
    await networks.delete_published(cx.tx, [port.id for port in plan.published_before if port not in stays])
    await _settle_endpoints(cx.tx, plan, row)
    await replicas.delete_services(cx.tx, plan.removed_services)
    await _give_virtual_ips_back(cx.tx, row.spec, app)
    await disks.delete(cx.tx, gone)
    if app.release_id is not None:
        await releases.set_state(cx.tx, app.release_id, "superseded")
    await releases.set_state(cx.tx, release, "current")
    await apps.save(
        cx.tx,
        msgspec.structs.replace(
            app,
            release_id=release,
            revision=row.revision,
            version=app.version + 1,
            updated=cx.env.now(),
        ),
    )


async def _load(tx: AsyncConnection, release: ReleaseId) -> tuple[ReleaseRow, AppRow, Plan]:
    row = await releases.get(tx, release)
    app = await apps.get(tx, row.app_id) if row is not None else None
    if row is None or app is None:
        raise NotFound(f"Release {release} is gone: its app was removed.")
    return row, app, msgspec.json.decode(row.plan, type=Plan)


async def _take_back(tx: AsyncConnection, plan: Plan) -> None:
    created = [change for change in plan.replicas if change.action in NEW]
    updated = _updated(plan)
    await snapshots.delete(tx, [one.id for change in updated for one in change.snapshots])
    await networks.delete_ports(tx, _new_ports(plan))
    await replicas.delete_containers(tx, [change.container for change in created + updated])
    await replicas.delete(tx, [change.replica for change in created])
    await _unpublish(tx, plan)
    app = await apps.get(tx, plan.app)
    before = await releases.get(tx, app.release_id) if app is not None and app.release_id else None
    await _release_endpoints(tx, plan, before)
    await replicas.delete_services(tx, [plan.services[name] for name in plan.new_services])
    if app is not None and before is not None:
        await _set_groups(tx, plan, before.spec)
        await _give_virtual_ips_back(tx, before.spec, app)
    await disks.delete(tx, [*(disk.id for disk in plan.disks), *_new_system_disks(plan)])
    await networks.delete(tx, await _unused_networks(tx, plan))
    stopped = [change for change in plan.replicas if change.action in ("start", "update")]
    stopped = [change for change in stopped if change.before == "stopped"]
    await replicas.set_desired(tx, [change.replica for change in stopped], "stopped")


async def _join_groups(tx: AsyncConnection, plan: Plan, row: ReleaseRow) -> None:
    """Raises NotFound: a security group was removed since the plan was made."""
    known = {group.name for group in await groups.every(tx, row.tenant_id)}
    security_groups.must_exist(row.spec, known)
    await _set_groups(tx, plan, row.spec)


async def _set_groups(tx: AsyncConnection, plan: Plan, spec: AppSpec) -> None:
    for name, service in spec.services.items():
        if name in plan.services:
            await replicas.set_groups(tx, plan.services[name], service.x_skep.security_groups)


async def _led(tx: AsyncConnection, spec: AppSpec, app: AppRow) -> set[tuple[ServiceId, NetworkId]]:
    """Which services have a virtual IP, on which networks."""
    services = {ServiceName(row.name): row.id for row in await replicas.services_of(tx, app.id)}
    known = await networks.reachable(tx, app.tenant_id)
    return virtual_ips.wanted(spec, services, {name: row.id for name, row in known.items()})


async def _give_virtual_ips_back(tx: AsyncConnection, spec: AppSpec, app: AppRow) -> None:
    """All but those that the release with this specification has."""
    wanted = await _led(tx, spec, app)
    present = await virtual_ip_rows.of_app(tx, app.id)
    await virtual_ip_rows.delete(
        tx, [row.id for row in present if (row.service_id, row.network_id) not in wanted]
    )


async def _insert_disks(tx: AsyncConnection, plan: Plan, row: ReleaseRow) -> None:
    data = [
        DiskRow(
            id=disk.id,
            tenant_id=row.tenant_id,
            app_id=row.app_id,
            name=disk.name,
            kind="data",
            size=disk.size,
            host=disk.host,
            created=row.created,
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
    external = {volume.external for volume in row.spec.volumes.values()}
    wanted = {name for change in plan.replicas for name in change.disks} - external
    waiting = [disk for disk in await disks.every(tx, row.tenant_id) if disk.app_id is None]
    await disks.set_app(tx, [disk.id for disk in waiting if disk.name in wanted], row.app_id)


async def _insert_replicas(tx: AsyncConnection, plan: Plan, row: ReleaseRow) -> None:
    created = [change for change in plan.replicas if change.action in NEW]
    updated = _updated(plan)
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
    await replicas.insert_containers(tx, [_container(change, row) for change in created + updated])
    await replicas.set_desired(tx, [change.replica for change in updated], "running")


async def _insert_snapshots(tx: AsyncConnection, plan: Plan, app: AppRow, now: float) -> None:
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


def _updated(plan: Plan) -> list[ReplicaChange]:
    return [change for change in plan.replicas if change.action == "update"]


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


async def _publish(tx: AsyncConnection, plan: Plan, row: ReleaseRow) -> None:
    """Claim what is published anew."""
    own = {port.id for port in plan.published_before}
    others = [port for port in await networks.published_ports(tx) if port.id not in own]
    chosen = publications.choose(plan, row.spec, row.tenant_id, others)
    await networks.delete_published(tx, [port.id for port in chosen.superseded])
    await networks.insert_published(tx, chosen.new)


async def _unpublish(tx: AsyncConnection, plan: Plan) -> None:
    """Back to what the current release publishes; nobody else could take its numbers meanwhile."""
    before = {port.id: port for port in plan.published_before}
    services = {plan.services[name] for name in plan.republish} | set(plan.removed_services)
    present = {port.id for port in await networks.published_ports(tx, services=services)}
    await networks.delete_published(tx, present - before.keys())
    await networks.insert_published(tx, [port for name, port in before.items() if name not in present])


async def _claim_endpoints(tx: AsyncConnection, plan: Plan, row: ReleaseRow, now: float) -> None:
    """Those that are new; requests for them come to whoever serves already.

    Raises:
        Conflict: a name is somebody else's.
        NotFound: there is no such certificate.
    """
    held = {one.name for one in await endpoints.certificates(tx, row.tenant_id)}
    endpoint_rules.must_have_certificates(row.spec, held)
    new = endpoint_rules.claim(
        row.spec,
        plan.services,
        await endpoints.every(tx),
        app=row.app_id,
        tenant=row.tenant_id,
        now=now,
        new_id=new_id,
    )
    await endpoints.insert(tx, new)


async def _settle_endpoints(tx: AsyncConnection, plan: Plan, row: ReleaseRow) -> None:
    """From now on they are as this release has them, and what it has not is anybody's."""
    rows = await endpoints.every(tx, app=row.app_id)
    changed, gone = endpoint_rules.settle(row.spec, plan.services, rows)
    for one in changed:
        await endpoints.save(tx, one)
    await endpoints.delete(tx, gone)


async def _release_endpoints(tx: AsyncConnection, plan: Plan, before: ReleaseRow | None) -> None:
    """Give back what the release before did not have."""
    rows = await endpoints.every(tx, app=plan.app)
    kept = {(one.host, one.path) for _, one in endpoint_rules.wanted(before.spec)} if before else set()
    await endpoints.delete(tx, [row.id for row in rows if (row.host, row.path) not in kept])


async def _is_prepared(tx: AsyncConnection, plan: Plan) -> bool:
    for change in plan.replicas:
        if change.action in (*NEW, "update"):
            return await replicas.container(tx, change.container) is not None
    return True


def _new_ports(plan: Plan) -> list[PortId]:
    """Ports that this plan made: those of new replicas, and new ones of replicas that stay."""
    return [port.id for change in plan.replicas for port in change.ports if port.new]


def _new_system_disks(plan: Plan) -> list[DiskId]:
    return [
        change.system_disk
        for change in plan.replicas
        if change.system_disk is not None and change.new_system_disk is not None
    ]


async def _unused_networks(tx: AsyncConnection, plan: Plan) -> list[NetworkId]:
    """Networks the plan made, without the tenant's own that others may use by now."""
    return [network.id for network in plan.networks if not await networks.ports_of(tx, network=network.id)]


async def _obsolete_ports(tx: AsyncConnection, plan: Plan, app: AppId) -> list[PortId]:
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
