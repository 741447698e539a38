"""Reading from the store what plans and views are made of."""

from collections import defaultdict
from collections.abc import Collection, Mapping

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.naming import default_network
from skep.control.plans import moves
from skep.control.plans.plans import Facts
from skep.model.errors import Conflict, Exhausted, InvalidInput, NotFound, Unsupported
from skep.model.ids import AppId, Bytes, HostName, TenantId
from skep.model.images import ImageInfo
from skep.model.names import ServiceName
from skep.model.placement import attributes
from skep.model.spec import AppSpec, Resources
from skep.schedule.candidates import Candidate
from skep.schedule.placement import Cluster
from skep.store import apps, clusters, disks, hosts, images, networks, releases, replicas
from skep.store.apps import AppRow
from skep.store.hosts import HostRow, PoolRow
from skep.store.releases import ReleaseRow


class AppRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An app with its current release (None before the first one is finished)."""

    app: AppRow
    release: ReleaseRow | None


async def load_app(connection: AsyncConnection, tenant: TenantId, name: str) -> AppRecord:
    """Raises NotFound."""
    app = await apps.by_name(connection, tenant, name)
    if app is None:
        raise NotFound(f"There is no app {name!r}; see 'skep apps'.")
    release = await releases.get(connection, app.release_id) if app.release_id else None
    return AppRecord(app=app, release=release)


async def gather(
    connection: AsyncConnection,
    tenant: TenantId,
    record: AppRecord | None,
    new: AppId,
    spec: AppSpec,
    pinned: Mapping[str, ImageInfo] = {},
) -> Facts:
    """Everything a plan for `spec` depends on; an app that is not there yet gets the id `new`.

    `pinned`: services whose images are decided, whatever their references point at.
    """
    app = record.app.id if record else new
    containers = {row.id: row for row in await replicas.containers_of(connection, app)}
    known = await images.resolve(connection, tenant, {service.image for service in spec.services.values()})
    services = await replicas.services_of(connection, app)
    machines, on_clusters = await hosts.every(connection), await clusters.every(connection)
    return Facts(
        app=app,
        version=record.app.version if record else 0,
        revision=await releases.highest_revision(connection, app),
        current=record.release.spec if record and record.release else None,
        services=tuple(services),
        replicas=tuple(await replicas.find(connection, app=app)),
        containers=containers,
        ports=tuple(await networks.ports_of(connection, app=app)),
        networks=await networks.reachable(connection, tenant),
        default_network=default_network(tenant),
        disks={row.name: row for row in await disks.every(connection, tenant) if row.kind == "data"},
        images={
            name: known[service.image].info
            for name, service in spec.services.items()
            if service.image in known
        }
        | {name: info for name, info in pinned.items() if name in spec.services},
        published=tuple(
            await networks.published_ports(connection, services=[service.id for service in services])
        ),
        zones={row.name: row.zone for row in machines},
        silent=frozenset(row.name for row in machines if not row.answers),
        clusters={row.zone: frozenset(row.lacks) for row in on_clusters},
        ranges={row.zone: row.ranges for row in on_clusters},
    )


async def cluster(connection: AsyncConnection, default_memory: Bytes) -> Cluster:
    """Every host with what it has promised to the replicas it runs."""
    return Cluster(await candidates(connection, default_memory))


async def candidates(connection: AsyncConnection, default_memory: Bytes) -> list[Candidate]:
    cpus, memory = await _promised(connection, default_memory)
    pools = {row.name: row for row in await hosts.every_pool(connection)}
    regions = {row.name: row.region for row in await hosts.every_zone(connection)}
    on_clusters = {row.zone for row in await clusters.every(connection)}
    found = [
        _candidate(row, pools[row.pool], regions[row.zone], cpus[row.name], memory[row.name])
        for row in await hosts.every(connection)
    ]
    return [
        msgspec.structs.replace(one, cluster=one.zone) if one.zone in on_clusters else one for one in found
    ]


async def cluster_attributes(connection: AsyncConnection) -> dict[HostName, Mapping[str, str]]:
    """What constraints can ask about each host that is a cluster."""
    standing = [await hosts.get(connection, row.host) for row in await clusters.every(connection)]
    if not standing:
        return {}
    pools = {row.name: row for row in await hosts.every_pool(connection)}
    regions = {row.name: row.region for row in await hosts.every_zone(connection)}
    return {
        row.name: _attributes(row, pools[row.pool], regions[row.zone]) for row in standing if row is not None
    }


def _attributes(row: HostRow, pool: PoolRow, region: str) -> dict[str, str]:
    """Labels of the host count before those of its pool."""
    return attributes(row.name, row.zone, region, row.pool, pool.labels | row.labels)


def _candidate(row: HostRow, pool: PoolRow, region: str, cpus: float, memory: int) -> Candidate:
    return Candidate(
        host=row.name,
        zone=row.zone,
        region=region,
        pool=row.pool,
        refuses="" if row.schedulable else row.shown,
        tenant=pool.tenant_id,
        cpus=row.cpus * (row.cpu_overcommit or pool.cpu_overcommit),
        memory=Bytes(int(row.memory * (row.memory_overcommit or pool.memory_overcommit))),
        promised_cpus=cpus,
        promised_memory=Bytes(memory),
        attributes=_attributes(row, pool, region),
    )


async def _promised(
    connection: AsyncConnection, default_memory: Bytes
) -> tuple[defaultdict[str, float], defaultdict[str, int]]:
    """CPUs and memory by host."""
    cpus, memory = defaultdict[str, float](float), defaultdict[str, int](int)
    specs = {row.app_id: row.spec for row in await releases.wanted(connection)}
    for replica in await replicas.find(connection):
        spec = specs.get(replica.app_id)
        service = spec.services.get(ServiceName(replica.service)) if spec else None
        wanted = service.resources if service else Resources()
        cpus[replica.host] += wanted.cpus or 0.0
        memory[replica.host] += wanted.memory or default_memory
    return cpus, memory


async def build_host(connection: AsyncConnection, *, builds: bool = False) -> HostName:
    """Where images are fetched, and with `builds` built: a ready host of a pool for everybody.

    It is the machine with most free disk; where there is none, a cluster fetches, and builds nothing.

    Raises:
        Exhausted: there is none.
        Unsupported: something is to be built, and there are only clusters.
    """
    own = {row.name for row in await hosts.every_pool(connection) if row.tenant_id is not None}
    on_clusters = {row.host for row in await clusters.every(connection)}
    ready = [row for row in await hosts.every(connection) if row.schedulable and row.pool not in own]
    machines = [row for row in ready if row.name not in on_clusters]
    if builds and ready and not machines:
        raise Unsupported(
            "Images are built on skep's own hosts, and only clusters are ready: add a host with 'skep host "
            "add', or build elsewhere and pull or import the image."
        )
    rows = machines or ready
    if not rows:
        raise Exhausted("No host is ready to fetch or build images; see 'skep host ls'.")
    return min(rows, key=lambda row: (row.load.disk_used - row.load.disk_total, row.name)).name


async def check_shared(connection: AsyncConnection, app: AppRow, *, volumes: bool) -> None:
    """Whether nobody else uses what goes with the app: its networks, and with `volumes` its data disks.

    Raises:
        Conflict: names what is used, and by whom.
    """
    plugs = {row.name for row in await networks.every(connection, app.tenant_id) if row.app_id == app.id}
    data = {row.name for row in await disks.every(connection, app=app.id) if row.kind == "data" and volumes}
    for release in await releases.in_use(connection, app.tenant_id):
        spec = release.spec
        shared = [net.external for net in spec.networks.values() if net.external in plugs]
        shared += [volume.external for volume in spec.volumes.values() if volume.external in data]
        if shared and release.app_id != app.id:
            raise Conflict(
                f"App {spec.name!r} uses {', '.join(map(str, shared))} of app {app.name!r}: change or remove "
                f"{spec.name!r} first."
            )


async def check_settled(connection: AsyncConnection, app: AppRow) -> None:
    """Raises Conflict: the app was moved, and its disks are twice there."""
    if left := moves.left_in(await disks.every(connection, app=app.id)):
        raise Conflict(
            f"App {app.name!r} was moved, and what its disks held then is still on {left[-1].host}: say "
            f"'skep app move {app.name} --confirm' or '--back' first."
        )


async def check_files(
    connection: AsyncConnection, tenant: TenantId, spec: AppSpec, sent: Collection[str]
) -> None:
    """Whether every config and secret has come along, or is one of the tenant's own of before.

    Raises:
        InvalidInput: a digest alone; it opens nothing that others have sent.
    """
    declared = {f"config {name}": file.digest for name, file in spec.configs.items()}
    declared |= {f"secret {name}": file.digest for name, file in spec.secrets.items()}
    if set(declared.values()) <= set(sent):
        return
    known = await apps.known_files(connection, tenant) | set(sent)
    missing = sorted(what for what, digest in declared.items() if digest not in known)
    if missing:
        raise InvalidInput(f"The content of {', '.join(missing[:10])} is not here: send it along.")
