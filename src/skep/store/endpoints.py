"""HTTP(S) endpoints, who answers for them, and the certificates that tenants gave."""

import hashlib
from collections.abc import Collection, Iterable

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.model.ids import AppId, CertificateId, EndpointId, NetworkId, ReplicaId, ServiceId, TenantId
from skep.model.spec import EndpointSpec
from skep.store import rows
from skep.store.tables import containers, endpoints, ports, releases, replicas, services, tls_certificates


class EndpointRow(rows.Row, frozen=True, kw_only=True):
    """`spec` is complete: its port is that of the container, whatever the tenant left out."""

    id: EndpointId
    tenant_id: TenantId
    app_id: AppId
    service_id: ServiceId
    host: str
    path: str
    spec: EndpointSpec
    wakes: bool = False
    """Its service may have no replicas, and a request starts one."""
    created: float


class TlsCertificateRow(rows.Row, frozen=True, kw_only=True):
    """`chain` is PEM, the certificate itself first; its key is sealed."""

    id: CertificateId
    tenant_id: TenantId
    name: str
    chain: str
    sealed_key: bytes
    created: float
    expires: float

    @property
    def digest(self) -> str:
        """What hosts call it."""
        return hashlib.sha256(self.chain.encode()).hexdigest()


class PlaceRow(rows.Row, frozen=True, kw_only=True):
    """Where a replica is reached, and of which revision its container is."""

    replica_id: ReplicaId
    network_id: NetworkId
    address: int
    revision: int


async def every(
    connection: AsyncConnection, *, tenant: TenantId | None = None, app: AppId | None = None
) -> list[EndpointRow]:
    query = sa.select(endpoints).order_by(endpoints.c.host, endpoints.c.path)
    if tenant is not None:
        query = query.where(endpoints.c.tenant_id == tenant)
    if app is not None:
        query = query.where(endpoints.c.app_id == app)
    return await rows.many(connection, query, EndpointRow)


async def insert(connection: AsyncConnection, new: Iterable[EndpointRow]) -> None:
    await rows.insert(connection, endpoints, new)


async def save(connection: AsyncConnection, row: EndpointRow) -> None:
    values = {"service_id": row.service_id, "spec": row.spec, "wakes": row.wakes}
    await connection.execute(sa.update(endpoints).where(endpoints.c.id == row.id).values(values))


async def delete(connection: AsyncConnection, ids: Iterable[str]) -> None:
    await rows.delete(connection, endpoints, ids)


async def apps_of(connection: AsyncConnection, chosen: Collection[ServiceId]) -> set[AppId]:
    """The apps that the services are of."""
    query = sa.select(services.c.app_id).where(services.c.id.in_(list(chosen))).distinct()
    return set((await connection.execute(query)).scalars())


async def places(connection: AsyncConnection, app: AppId | None = None) -> dict[ReplicaId, PlaceRow]:
    """Of the app's replicas (None: of all), on the first network of each."""
    query = (
        sa.select(
            ports.c.replica_id, ports.c.network_id, ports.c.address, releases.c.revision.label("revision")
        )
        .join(replicas, ports.c.replica_id == replicas.c.id)
        .join(containers, replicas.c.container_id == containers.c.id)
        .join(releases, containers.c.release_id == releases.c.id)
        .where(ports.c.position == 0)
    )
    if app is not None:
        query = query.where(replicas.c.app_id == app)
    return {row.replica_id: row for row in await rows.many(connection, query, PlaceRow)}


async def networks(
    connection: AsyncConnection, chosen: Collection[NetworkId] | None = None
) -> set[NetworkId]:
    """The networks on which somebody answers for an endpoint: every host must reach them."""
    query = (
        sa.select(ports.c.network_id)
        .join(replicas, ports.c.replica_id == replicas.c.id)
        .join(endpoints, endpoints.c.service_id == replicas.c.service_id)
        .where(ports.c.position == 0)
        .distinct()
    )
    if chosen is not None:
        query = query.where(ports.c.network_id.in_(list(chosen)))
    return set((await connection.execute(query)).scalars())


async def certificates(
    connection: AsyncConnection, tenant: TenantId | None = None
) -> list[TlsCertificateRow]:
    query = sa.select(tls_certificates).order_by(tls_certificates.c.name)
    if tenant is not None:
        query = query.where(tls_certificates.c.tenant_id == tenant)
    return await rows.many(connection, query, TlsCertificateRow)


async def insert_certificate(connection: AsyncConnection, row: TlsCertificateRow) -> None:
    await rows.insert(connection, tls_certificates, [row])


async def delete_certificate(connection: AsyncConnection, certificate: CertificateId) -> None:
    await rows.delete(connection, tls_certificates, [certificate])


async def delete_certificate_of(connection: AsyncConnection, tenant: TenantId, name: str) -> None:
    mine = sa.and_(tls_certificates.c.tenant_id == tenant, tls_certificates.c.name == name)
    await connection.execute(sa.delete(tls_certificates).where(mine))
