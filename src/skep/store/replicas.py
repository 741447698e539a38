"""Services, replicas and their containers.

A replica is a stable identity (`web-0`, its ports, its disks); a container is one incarnation of it, made
from one release.  During an update a replica has two.
"""

from collections.abc import Iterable, Mapping

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.model.host import ContainerStatus
from skep.model.ids import AppId, ContainerId, DiskId, HostName, ReleaseId, ReplicaId, ServiceId, TenantId
from skep.store import rows
from skep.store.tables import apps, containers, replicas, services


class ServiceRow(rows.Row, frozen=True, kw_only=True):
    id: ServiceId
    tenant_id: TenantId
    app_id: AppId
    name: str
    security_groups: tuple[str, ...] = ()


class ReplicaRow(rows.Row, frozen=True, kw_only=True):
    """`desired`: running or stopped.  `status`: what its host saw last of its current container.

    `weight`: its share of new connections, 0 to 256 (docs/decisions/0020).  A `stand_in` stands beside the
    replica of the same ordinal until a release is finished, and then takes its place.
    """

    id: ReplicaId
    tenant_id: TenantId
    app_id: AppId
    service_id: ServiceId
    service: str
    ordinal: int
    host: HostName
    container_id: ContainerId
    desired: str
    status: ContainerStatus | None = None
    created: float
    weight: int = 100
    stand_in: bool = False

    @property
    def name(self) -> str:
        return f"{self.service}-{self.ordinal}"


class ContainerRow(rows.Row, frozen=True, kw_only=True):
    """`fingerprint` is equal for containers that would be made alike: such a one need not be replaced."""

    id: ContainerId
    tenant_id: TenantId
    replica_id: ReplicaId
    release_id: ReleaseId
    system_disk: DiskId
    fingerprint: str
    created: float


class ReplicaOwner(rows.Row, frozen=True, kw_only=True):
    """Whose container it is, as events tell it."""

    tenant_id: TenantId
    app: str
    service: str
    ordinal: int

    @property
    def name(self) -> str:
        return f"{self.service}-{self.ordinal}"


async def services_of(connection: AsyncConnection, app: AppId) -> list[ServiceRow]:
    query = sa.select(services).where(services.c.app_id == app).order_by(services.c.name)
    return await rows.many(connection, query, ServiceRow)


async def insert_services(connection: AsyncConnection, new: Iterable[ServiceRow]) -> None:
    await rows.insert(connection, services, new)


async def set_groups(connection: AsyncConnection, service: ServiceId, groups: tuple[str, ...]) -> None:
    """Name the security groups of all replicas of the service."""
    await connection.execute(
        sa.update(services).where(services.c.id == service).values(security_groups=groups)
    )


async def delete_services(connection: AsyncConnection, ids: Iterable[str]) -> None:
    await rows.delete(connection, services, ids)


async def find(
    connection: AsyncConnection, *, tenant: TenantId | None = None, app: AppId | None = None
) -> list[ReplicaRow]:
    query = sa.select(replicas).order_by(replicas.c.app_id, replicas.c.service, replicas.c.ordinal)
    if tenant is not None:
        query = query.where(replicas.c.tenant_id == tenant)
    if app is not None:
        query = query.where(replicas.c.app_id == app)
    return await rows.many(connection, query, ReplicaRow)


async def on_host(connection: AsyncConnection, host: HostName) -> list[ReplicaRow]:
    query = sa.select(replicas).where(replicas.c.host == host).order_by(replicas.c.app_id, replicas.c.id)
    return await rows.many(connection, query, ReplicaRow)


async def of_service(connection: AsyncConnection, service: ServiceId) -> list[ReplicaRow]:
    query = sa.select(replicas).where(replicas.c.service_id == service).order_by(replicas.c.ordinal)
    return await rows.many(connection, query, ReplicaRow)


async def get(connection: AsyncConnection, replica: ReplicaId) -> ReplicaRow | None:
    return await rows.one(connection, sa.select(replicas).where(replicas.c.id == replica), ReplicaRow)


async def services_with(connection: AsyncConnection, members: Iterable[ReplicaId]) -> list[ServiceId]:
    """The services that any of the replicas is of."""
    query = sa.select(replicas.c.service_id).where(replicas.c.id.in_(list(members))).distinct()
    return [ServiceId(found) for found in (await connection.execute(query)).scalars()]


async def owner(connection: AsyncConnection, container_id: ContainerId) -> ReplicaOwner | None:
    """The owner of a container that is its replica's current one."""
    query = (
        sa.select(replicas.c.tenant_id, apps.c.name.label("app"), replicas.c.service, replicas.c.ordinal)
        .join(apps, replicas.c.app_id == apps.c.id)
        .where(replicas.c.container_id == container_id)
    )
    return await rows.one(connection, query, ReplicaOwner)


async def by_container(connection: AsyncConnection, container: ContainerId) -> ReplicaRow | None:
    return await rows.one(
        connection, sa.select(replicas).where(replicas.c.container_id == container), ReplicaRow
    )


async def insert(connection: AsyncConnection, new: Iterable[ReplicaRow]) -> None:
    await rows.insert(connection, replicas, new)


async def delete(connection: AsyncConnection, ids: Iterable[str]) -> None:
    await rows.delete(connection, replicas, ids)


async def take_places(connection: AsyncConnection, ids: Iterable[ReplicaId]) -> None:
    """Stand-ins become the replicas of their ordinals, which nobody has any more."""
    for replica in ids:
        await connection.execute(sa.update(replicas).where(replicas.c.id == replica).values(stand_in=False))


async def set_container(connection: AsyncConnection, replica: ReplicaId, container: ContainerId) -> None:
    changed = sa.update(replicas).where(replicas.c.id == replica).values(container_id=container, status=None)
    await connection.execute(changed)


async def set_host(connection: AsyncConnection, replica: ReplicaId, host: HostName) -> None:
    await connection.execute(sa.update(replicas).where(replicas.c.id == replica).values(host=host))


async def set_desired(connection: AsyncConnection, ids: Iterable[ReplicaId], desired: str) -> None:
    for replica in ids:
        await connection.execute(sa.update(replicas).where(replicas.c.id == replica).values(desired=desired))


async def set_weights(connection: AsyncConnection, weights: Mapping[ReplicaId, int]) -> None:
    for weight in sorted(set(weights.values())):
        those = [replica for replica, wanted in weights.items() if wanted == weight]
        await connection.execute(sa.update(replicas).where(replicas.c.id.in_(those)).values(weight=weight))


async def set_status(connection: AsyncConnection, status: ContainerStatus) -> None:
    """Record what a host saw; news of a container that is no longer the replica's own are dropped."""
    current = sa.and_(replicas.c.id == status.replica, replicas.c.container_id == status.id)
    await connection.execute(sa.update(replicas).where(current).values(status=status))


async def correct_status(
    connection: AsyncConnection, status: ContainerStatus, known: ContainerStatus | None
) -> None:
    """Record it, unless news came since the replica's status was read as `known`."""
    row = await get(connection, status.replica)
    if row is not None and row.status == known:
        await set_status(connection, status)


async def container(connection: AsyncConnection, container_id: ContainerId) -> ContainerRow | None:
    return await rows.one(
        connection, sa.select(containers).where(containers.c.id == container_id), ContainerRow
    )


async def containers_of(connection: AsyncConnection, app: AppId | None = None) -> list[ContainerRow]:
    query = sa.select(containers)
    if app is not None:
        query = query.join(replicas, containers.c.replica_id == replicas.c.id).where(replicas.c.app_id == app)
    return await rows.many(connection, query, ContainerRow)


async def containers_on(connection: AsyncConnection, of: Iterable[ReplicaId]) -> list[ContainerRow]:
    """Those of the replicas, also of releases that come or go."""
    return await rows.many(
        connection, sa.select(containers).where(containers.c.replica_id.in_(list(of))), ContainerRow
    )


async def insert_containers(connection: AsyncConnection, new: Iterable[ContainerRow]) -> None:
    await rows.insert(connection, containers, new)


async def delete_containers(connection: AsyncConnection, ids: Iterable[str]) -> None:
    await rows.delete(connection, containers, ids)
