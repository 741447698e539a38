"""Networks, ports and published ports.  Addresses are stored as numbers, so that gaps are found by SQL."""

from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.model.host import ContainerState, ContainerStatus
from skep.model.ids import AppId, HostName, NetworkId, PortId, ReplicaId, ServiceId, TenantId
from skep.store import rows
from skep.store.subnets import Subnet
from skep.store.tables import apps, networks, ports, published, replicas, shares, tenants, virtual_ips


class NetworkRow(rows.Row, frozen=True, kw_only=True):
    """`app_id` None: the tenant's own, shared by its apps.  `number` is unique in the installation.

    `cursor` is the address given out last: the next one follows it, so that a freed address rests a while.
    `more` subnets follow the first, in the order in which they are used.
    """

    id: NetworkId
    tenant_id: TenantId
    app_id: AppId | None
    name: str
    subnet: str
    gateway: str
    number: int
    cursor: int
    internal: bool
    created: float
    more: tuple[Subnet, ...] = ()


class PortRow(rows.Row, frozen=True, kw_only=True):
    """`position` 0 is eth0, which holds the default route."""

    id: PortId
    tenant_id: TenantId
    network_id: NetworkId
    replica_id: ReplicaId
    address: int
    mac: str
    names: tuple[str, ...]
    position: int
    address6: int | None = None


class PublishedRow(rows.Row, frozen=True, kw_only=True):
    """A port of every host that runs a replica of the service; no other host has that number."""

    id: str
    tenant_id: TenantId
    service_id: ServiceId
    host_ip: str
    protocol: str
    published: int
    target: int


class AttachmentRow(rows.Row, frozen=True, kw_only=True):
    """A port with where its replica is, as the other hosts of the network need it.

    `guest` is the name of its tenant where the network is another's, else "".
    """

    id: PortId
    tenant_id: TenantId
    network_id: NetworkId
    replica_id: ReplicaId
    address: int
    mac: str
    names: tuple[str, ...]
    host: HostName
    app: str
    service: str
    ordinal: int
    status: ContainerStatus | None
    guest: str = ""
    address6: int | None = None
    position: int = 0

    @property
    def replica(self) -> str:
        return f"{self.app}/{self.service}-{self.ordinal}"

    @property
    def full_names(self) -> tuple[str, ...]:
        """With the app, and with the tenant where the network is another's."""
        app = f"{self.app}.{self.guest}" if self.guest else self.app
        return tuple(f"{name}.{app}" for name in self.names)

    @property
    def runs(self) -> bool:
        return self.status is not None and self.status.state is ContainerState.RUNNING


_guest = sa.case((ports.c.tenant_id == networks.c.tenant_id, ""), else_=tenants.c.name)


async def attachments(
    connection: AsyncConnection, chosen: Iterable[NetworkId] | None = None
) -> list[AttachmentRow]:
    """The ports of the chosen networks (None: of all)."""
    query = (
        sa.select(
            ports,
            replicas.c.host,
            replicas.c.service,
            replicas.c.ordinal,
            replicas.c.status,
            apps.c.name.label("app"),
            _guest.label("guest"),
        )
        .join(replicas, ports.c.replica_id == replicas.c.id)
        .join(apps, replicas.c.app_id == apps.c.id)
        .join(networks, ports.c.network_id == networks.c.id)
        .join(tenants, ports.c.tenant_id == tenants.c.id)
    )
    if chosen is not None:
        query = query.where(ports.c.network_id.in_(list(chosen)))
    return await rows.many(connection, query, AttachmentRow)


async def networks_of(connection: AsyncConnection, members: Iterable[ReplicaId]) -> list[NetworkId]:
    """The networks that any of the replicas is on."""
    query = sa.select(ports.c.network_id).where(ports.c.replica_id.in_(list(members))).distinct()
    return [NetworkId(found) for found in (await connection.execute(query)).scalars()]


async def every(connection: AsyncConnection, tenant: TenantId | None = None) -> list[NetworkRow]:
    query = sa.select(networks).order_by(networks.c.name)
    if tenant is not None:
        query = query.where(networks.c.tenant_id == tenant)
    return await rows.many(connection, query, NetworkRow)


async def reachable(connection: AsyncConnection, tenant: TenantId) -> dict[str, NetworkRow]:
    """The networks the tenant may plug into, by its names for them: its own, and those it accepted."""
    accepted = (
        sa.select(networks, shares.c.alias)
        .join(shares, shares.c.network_id == networks.c.id)
        .where(shares.c.guest_id == tenant, shares.c.accepted.is_not(None))
    )
    found = {
        str(row["alias"]): NetworkRow(
            **{key: row[key] for key in NetworkRow.__struct_fields__} | {"name": row["alias"]}
        )
        for row in (await connection.execute(accepted)).mappings()
    }
    return found | {row.name: row for row in await every(connection, tenant)}


async def guests(connection: AsyncConnection, chosen: Iterable[NetworkId]) -> dict[PortId, str]:
    """The tenants of the networks' ports that are not the owner's, by port."""
    query = (
        sa.select(ports.c.id, tenants.c.name)
        .join(networks, ports.c.network_id == networks.c.id)
        .join(tenants, ports.c.tenant_id == tenants.c.id)
        .where(ports.c.network_id.in_(list(chosen)), ports.c.tenant_id != networks.c.tenant_id)
    )
    return {PortId(row[0]): row[1] for row in (await connection.execute(query)).all()}


async def get(connection: AsyncConnection, network: NetworkId) -> NetworkRow | None:
    return await rows.one(connection, sa.select(networks).where(networks.c.id == network), NetworkRow)


async def insert(connection: AsyncConnection, new: Iterable[NetworkRow]) -> None:
    await rows.insert(connection, networks, new)


async def delete(connection: AsyncConnection, ids: Iterable[str]) -> None:
    """With the addresses that services have there."""
    gone = list(ids)
    await connection.execute(sa.delete(virtual_ips).where(virtual_ips.c.network_id.in_(gone)))
    await rows.delete(connection, networks, gone)


async def set_ranges(connection: AsyncConnection, row: NetworkRow) -> None:
    """Write down where its subnets go on, and those that joined."""
    query = sa.update(networks).where(networks.c.id == row.id)
    await connection.execute(query.values(cursor=row.cursor, more=row.more))


async def numbers(connection: AsyncConnection) -> set[int]:
    return set((await connection.execute(sa.select(networks.c.number))).scalars())


async def ports_of(
    connection: AsyncConnection,
    *,
    tenant: TenantId | None = None,
    app: AppId | None = None,
    replica: ReplicaId | None = None,
    network: NetworkId | None = None,
) -> list[PortRow]:
    query = sa.select(ports).order_by(ports.c.replica_id, ports.c.position)
    if tenant is not None:
        query = query.where(ports.c.tenant_id == tenant)
    if app is not None:
        query = query.join(replicas, ports.c.replica_id == replicas.c.id).where(replicas.c.app_id == app)
    if replica is not None:
        query = query.where(ports.c.replica_id == replica)
    if network is not None:
        query = query.where(ports.c.network_id == network)
    return await rows.many(connection, query, PortRow)


async def port(connection: AsyncConnection, port_id: PortId) -> PortRow | None:
    return await rows.one(connection, sa.select(ports).where(ports.c.id == port_id), PortRow)


async def insert_ports(connection: AsyncConnection, new: Iterable[PortRow]) -> None:
    await rows.insert(connection, ports, new)


async def delete_ports(connection: AsyncConnection, ids: Iterable[str]) -> None:
    await rows.delete(connection, ports, ids)


async def set_names(connection: AsyncConnection, port_id: PortId, names: tuple[str, ...]) -> None:
    await connection.execute(sa.update(ports).where(ports.c.id == port_id).values(names=names))


async def published_ports(
    connection: AsyncConnection,
    *,
    tenant: TenantId | None = None,
    services: Iterable[ServiceId] | None = None,
) -> list[PublishedRow]:
    query = sa.select(published).order_by(published.c.published)
    if tenant is not None:
        query = query.where(published.c.tenant_id == tenant)
    if services is not None:
        query = query.where(published.c.service_id.in_(list(services)))
    return await rows.many(connection, query, PublishedRow)


async def insert_published(connection: AsyncConnection, new: Iterable[PublishedRow]) -> None:
    await rows.insert(connection, published, new)


async def delete_published(connection: AsyncConnection, ids: Iterable[str]) -> None:
    await rows.delete(connection, published, ids)
