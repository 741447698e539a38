"""Addresses of services: one on each of their networks."""

from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.model.ids import AppId, HostName, NetworkId, ReleaseId, ServiceId, TenantId
from skep.store import rows
from skep.store.replicas import ReplicaRow
from skep.store.tables import apps, containers, networks, replicas, services, tenants, virtual_ips


class VirtualIpRow(rows.Row, frozen=True, kw_only=True):
    id: str
    tenant_id: TenantId
    service_id: ServiceId
    network_id: NetworkId
    address: int


class NamedVirtualIpRow(rows.Row, frozen=True, kw_only=True):
    """With whose it is.  `guest` is the name of its tenant where the network is another's, else ""."""

    tenant_id: TenantId
    service_id: ServiceId
    network_id: NetworkId
    address: int
    service: str
    app: str
    guest: str


_guest = sa.case((virtual_ips.c.tenant_id == networks.c.tenant_id, ""), else_=tenants.c.name)


async def named(
    connection: AsyncConnection, chosen: Iterable[NetworkId] | None = None
) -> list[NamedVirtualIpRow]:
    """Those on the chosen networks (None: on all)."""
    query = (
        sa.select(
            virtual_ips,
            services.c.name.label("service"),
            apps.c.name.label("app"),
            _guest.label("guest"),
        )
        .join(services, virtual_ips.c.service_id == services.c.id)
        .join(apps, services.c.app_id == apps.c.id)
        .join(networks, virtual_ips.c.network_id == networks.c.id)
        .join(tenants, virtual_ips.c.tenant_id == tenants.c.id)
        .order_by(virtual_ips.c.address)
    )
    if chosen is not None:
        query = query.where(virtual_ips.c.network_id.in_(list(chosen)))
    return await rows.many(connection, query, NamedVirtualIpRow)


async def members(connection: AsyncConnection, chosen: Iterable[NetworkId] | None = None) -> list[ReplicaRow]:
    """The replicas of all services that have an address on the chosen networks (None: on any)."""
    having = sa.select(virtual_ips.c.service_id)
    if chosen is not None:
        having = having.where(virtual_ips.c.network_id.in_(list(chosen)))
    return await rows.many(
        connection, sa.select(replicas).where(replicas.c.service_id.in_(having)), ReplicaRow
    )


class ServedRelease(rows.Row, frozen=True, kw_only=True):
    """A release of which replicas behind a service are made."""

    service_id: ServiceId
    service: str
    release_id: ReleaseId


async def releases_behind(
    connection: AsyncConnection, services: Iterable[ServiceId], hosts: Iterable[HostName]
) -> list[ServedRelease]:
    """Of replicas on these hosts."""
    query = (
        sa.select(replicas.c.service_id, replicas.c.service, containers.c.release_id)
        .join(containers, replicas.c.container_id == containers.c.id)
        .where(replicas.c.service_id.in_(list(services)), replicas.c.host.in_(list(hosts)))
        .distinct()
    )
    return await rows.many(connection, query, ServedRelease)


async def of_app(connection: AsyncConnection, app: AppId) -> list[VirtualIpRow]:
    query = (
        sa.select(virtual_ips)
        .join(services, virtual_ips.c.service_id == services.c.id)
        .where(services.c.app_id == app)
        .order_by(virtual_ips.c.address)
    )
    return await rows.many(connection, query, VirtualIpRow)


async def on_network(connection: AsyncConnection, network: NetworkId) -> list[VirtualIpRow]:
    query = sa.select(virtual_ips).where(virtual_ips.c.network_id == network)
    return await rows.many(connection, query, VirtualIpRow)


async def networks_of(connection: AsyncConnection, chosen: Iterable[ServiceId]) -> list[NetworkId]:
    """The networks on which any of the services has an address."""
    query = sa.select(virtual_ips.c.network_id).where(virtual_ips.c.service_id.in_(list(chosen))).distinct()
    return [NetworkId(found) for found in (await connection.execute(query)).scalars()]


async def insert(connection: AsyncConnection, new: Iterable[VirtualIpRow]) -> None:
    await rows.insert(connection, virtual_ips, new)


async def delete(connection: AsyncConnection, ids: Iterable[str]) -> None:
    await rows.delete(connection, virtual_ips, ids)
