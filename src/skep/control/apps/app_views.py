"""Rows as the API shows them: apps, replicas, releases, plans."""

from collections.abc import Collection, Iterable, Mapping
from ipaddress import IPv4Address, ip_address

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.clock import rfc3339
from skep.control.endpoints.endpoint_views import url
from skep.control.flows import documents
from skep.control.host_directory import silence
from skep.control.plans import moves
from skep.control.plans.homing import in_cluster
from skep.control.plans.plans import Facts, Plan, ReplicaChange
from skep.control.settings import Settings
from skep.model.host import ContainerState, ContainerStatus, Health
from skep.model.ids import HostName, ZoneName
from skep.model.spec import AppSpec
from skep.model.views.apps import AppState, AppView, ReplicaView
from skep.model.views.plans import Action, PlanChange, PlanView
from skep.store import clusters, disks, endpoints, hosts, networks, releases, replicas, virtual_ips
from skep.store.apps import AppRow
from skep.store.networks import PortRow, PublishedRow
from skep.store.releases import ReleaseRow
from skep.store.replicas import ReplicaRow


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """What every view of an app is made of, read once."""

    app: AppRow
    members: list[ReplicaRow]
    silent: dict[HostName, str]
    """Hosts that do not answer, and since when, in words."""
    clusters: dict[HostName, ZoneName]


async def scenes(connection: AsyncConnection, rows: Iterable[AppRow]) -> list[Scene]:
    """Of each app; what is the same for all is read once."""
    silent = await silent_hosts(connection)
    led = {one.host: one.zone for one in await clusters.every(connection)}
    return [
        Scene(
            app=row,
            members=await replicas.find(connection, app=row.id),
            silent=silent,
            clusters=led,
        )
        for row in rows
    ]


async def app(
    connection: AsyncConnection, seen: Scene, tenant: str, changing: bool, settings: Settings
) -> AppView:
    row, members, silent = seen.app, seen.members, seen.silent
    led = await in_cluster(connection, row, members, seen.clusters)
    services = await replicas.services_of(connection, row.id)
    published = await networks.published_ports(connection, services=[service.id for service in services])
    reached = {host.name: host.underlay for host in await hosts.every(connection) if host.answers}
    where = {one.id: published_at(one.name, members, reached, settings.public_host) for one in services}
    running = sum(state(member, silent) == "running" for member in members)
    finished = sum(_finished(member) for member in members)
    return AppView(
        id=row.id,
        name=row.name,
        tenant=tenant,
        state=app_state(members, changing or row.removing, silent),
        revision=row.revision,
        services=tuple(service.name for service in services),
        replicas=len(members),
        running=running,
        finished=finished,
        left_in=await _left_in(connection, row),
        urls=tuple(
            url(one, settings, in_cluster=led) for one in await endpoints.every(connection, app=row.id)
        )
        + tuple(
            f"http://{where[port.service_id] if port.host_ip == '0.0.0.0' else port.host_ip}:{port.published}"  # noqa: S104
            for port in published
            if port.protocol == "tcp"
        ),
        created=rfc3339(row.created),
        updated=rfc3339(row.updated),
    )


async def _left_in(connection: AsyncConnection, row: AppRow) -> tuple[str, ...]:
    left = {disk.host for disk in moves.left_in(await disks.every(connection, app=row.id))}
    zones = {host.zone for host in await hosts.every(connection) if host.name in left} if left else set()
    return tuple(sorted(zones))


def published_at(
    service: str, members: list[ReplicaRow], reached: Mapping[HostName, str], public_host: str
) -> str:
    """Where its published ports are: at every node of a cluster, as the operator says, or else at a host
    elsewhere that runs it."""
    mine = [member for member in members if member.service == service]
    nodes = (member.status.node for member in mine if member.status)
    if found := next(filter(None, nodes), ""):
        return found
    if public_host != "localhost":
        return public_host
    return next(filter(None, (reached.get(member.host, "") for member in mine)), public_host)


async def silent_hosts(connection: AsyncConnection) -> dict[HostName, str]:
    """Hosts that do not answer, and since when, in words."""
    return {row.name: silence(row) for row in await hosts.every(connection) if not row.answers}


def app_state(members: list[ReplicaRow], changing: bool, silent: Collection[HostName] = ()) -> AppState:
    if changing:
        return AppState.CHANGING
    if not members:
        return AppState.EMPTY
    if all(member.desired == "stopped" for member in members):
        return AppState.STOPPED
    well = all(_well(member) and member.host not in silent for member in members)
    return AppState.RUNNING if well else AppState.PARTIAL


def _well(member: ReplicaRow) -> bool:
    """As it should be: stopped on request, running and not unhealthy, or done with its one job."""
    if member.desired == "stopped":
        return True
    if member.status is None:
        return False
    if _finished(member):
        return True
    return member.status.state is ContainerState.RUNNING and member.status.health is not Health.UNHEALTHY


def _finished(member: ReplicaRow) -> bool:
    """Its one job is done: it ended well, and nothing starts it again."""
    status = member.status
    if member.desired != "running" or status is None:
        return False
    return status.state is ContainerState.EXITED and status.exit_code == 0


def state(member: ReplicaRow, silent: Collection[HostName] = ()) -> str:
    """Of a host that is silent nobody knows: `unknown`."""
    if member.host in silent and member.desired == "running":
        return "unknown"
    if member.status is None:
        return "pending" if member.desired == "running" else "stopped"
    if member.desired == "stopped" and member.status.state is ContainerState.EXITED:
        return "stopped"
    return member.status.state.value


async def virtual_ips_of(connection: AsyncConnection, seen: Scene) -> dict[str, tuple[str, ...]]:
    """The addresses of its services, by service; none in a cluster, which does not use those of control."""
    if await in_cluster(connection, seen.app, seen.members, seen.clusters):
        return {}
    names = {one.id: one.name for one in await replicas.services_of(connection, seen.app.id)}
    found: dict[str, tuple[str, ...]] = {}
    for one in await virtual_ips.of_app(connection, seen.app.id):
        name = names[one.service_id]
        found[name] = (*found.get(name, ()), str(IPv4Address(one.address)))
    return found


async def replicas_of(connection: AsyncConnection, seen: Scene) -> list[ReplicaView]:
    row, members = seen.app, seen.members
    ports = await networks.ports_of(connection, app=row.id)
    published = await networks.published_ports(connection, services={member.service_id for member in members})
    history = {release.id: release for release in await releases.of_app(connection, row.id)}
    containers = {container.id: container for container in await replicas.containers_of(connection, row.id)}
    led = await virtual_ips.of_app(connection, row.id)
    views = []
    for member in members:
        container = containers.get(member.container_id)
        release = history.get(container.release_id) if container else None
        views.append(
            replica(
                row,
                member,
                [port for port in ports if port.replica_id == member.id],
                [port for port in published if port.service_id == member.service_id],
                tuple(str(IPv4Address(one.address)) for one in led if one.service_id == member.service_id),
                release,
                seen.silent,
                in_cluster=member.host in seen.clusters,
            )
        )
    return views


def replica(
    row: AppRow,
    member: ReplicaRow,
    ports: list[PortRow],
    published: list[PublishedRow],
    virtual: tuple[str, ...],
    release: ReleaseRow | None,
    silent: Mapping[HostName, str],
    *,
    in_cluster: bool = False,
) -> ReplicaView:
    """A cluster gives addresses of its own: those that control gave stand for the replica there, no more."""
    status = member.status
    seen = state(member, silent)
    service = release.spec.services.get(member.service) if release else None  # type: ignore[call-overload]
    info = release.images.get(member.service) if release else None
    return ReplicaView(
        id=member.id,
        app=row.name,
        service=member.service,
        name=member.name,
        desired=member.desired,
        state=seen,
        health=status.health.value if status and seen != "unknown" else Health.NONE.value,
        addresses=_own_addresses(status) if in_cluster else _addresses(ports),
        mac=ports[0].mac if ports and not in_cluster else "",
        virtual_ips=() if in_cluster else virtual,
        ports=tuple(f"{port.host_ip}:{port.published}->{port.target}/{port.protocol}" for port in published),
        image=service.image if service else "",
        image_digest=info.digest if info else "",
        revision=release.revision if release else 0,
        restarts=status.restarts if status else 0,
        exit_code=status.exit_code if status else None,
        oom_killed=status.oom_killed if status else False,
        error=_error(member, silent),
        host=member.host,
        started=rfc3339(status.started_at) if status else None,
        finished=rfc3339(status.finished_at) if status else None,
        created=rfc3339(member.created),
    )


def _addresses(ports: list[PortRow]) -> tuple[str, ...]:
    given = (address for port in ports for address in (port.address, port.address6))
    return tuple(str(ip_address(address)) for address in given if address is not None)


def _own_addresses(status: ContainerStatus | None) -> tuple[str, ...]:
    return (status.address,) if status is not None and status.address else ()


def _error(member: ReplicaRow, silent: Mapping[HostName, str]) -> str:
    if state(member, silent) == "unknown":
        return f"Host {member.host} {silent[member.host]}."
    return member.status.error if member.status else ""


_ACTIONS = {
    "create": Action.CREATE,
    "update": Action.RECREATE,
    "stand-in": Action.RECREATE,
    "start": Action.UPDATE,
    "remove": Action.REMOVE,
    "keep": Action.KEEP,
}


def plan(made: Plan, found: Facts, spec: AppSpec) -> PlanView:
    """The plan as people read it, in the order things happen."""
    changes = [
        PlanChange(action=Action.CREATE, kind="image", name=reference, reason="is not here: will be pulled")
        for reference in sorted(set(made.pulls.values()))
    ]
    changes += [
        PlanChange(action=Action.CREATE, kind="network", name=network.name) for network in made.networks
    ]
    changes += [PlanChange(action=Action.CREATE, kind="disk", name=disk.name) for disk in made.disks]
    changes += [PlanChange(action=Action.CREATE, kind="service", name=name) for name in made.new_services]
    changes += [_replica_change(change) for change in made.replicas]
    changes += [
        PlanChange(action=Action.UPDATE, kind="port", name=name, reason="what it publishes changes")
        for name in made.republish
    ]
    changes += [
        PlanChange(action=Action.REMOVE, kind="service", name=service.name)
        for service in found.services
        if service.name not in spec.services
    ]
    return PlanView(app=spec.name, revision=made.revision, changes=tuple(changes), warnings=made.remarks)


def _replica_change(change: ReplicaChange) -> PlanChange:
    return PlanChange(action=_ACTIONS[change.action], kind="replica", name=change.name, reason=change.reason)


async def removal_document(connection: AsyncConnection, row: AppRow, release: ReleaseRow | None) -> str:
    """The flow that removes all that the app's rows know of; nothing is asked of hosts that are off."""
    off = {host.name for host in await hosts.every(connection) if host.fenced is not None}
    members = [one for one in await replicas.find(connection, app=row.id) if one.host not in off]
    places = {member.id: member.host for member in members}
    every_container = await replicas.containers_of(connection, row.id)
    containers = [container for container in every_container if container.replica_id in places]
    every_disk = [disk for disk in await disks.every(connection, app=row.id) if disk.host not in off]
    tenant_networks = await networks.every(connection, row.tenant_id)
    of_replicas: dict[str, str] = {member.id: member.name for member in members}
    return documents.remove(
        row.id,
        release.spec if release else AppSpec(name=row.name, services={}),
        replicas=members,
        containers=[(container.id, places[container.replica_id]) for container in containers],
        sandboxes=[(member.id, member.host) for member in members],
        disks=[(disk.id, disk.host) for disk in every_disk if disk.kind == "system" or row.remove_volumes],
        services=sorted({(member.service_id, member.host) for member in members}),
        networks=[
            (network.id, host)
            for network in tenant_networks
            if network.app_id == row.id
            for host in sorted(set(places.values()))
        ],
        names={
            **of_replicas,
            **{member.service_id: member.service for member in members},
            **{disk.id: disk.name for disk in every_disk},
            **{container.system_disk: of_replicas[container.replica_id] for container in containers},
            **{network.id: network.name for network in tenant_networks},
        },
    )
