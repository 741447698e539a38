"""Security groups, who is in them, and the ports they guard."""

from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.model.groups import GroupRule
from skep.model.ids import GroupId, HostName, NetworkId, TenantId
from skep.store import rows
from skep.store.tables import ports, replicas, security_groups, services


class GroupRow(rows.Row, frozen=True, kw_only=True):
    """`rules` name other groups of the tenant by name."""

    id: GroupId
    tenant_id: TenantId
    name: str
    description: str
    rules: tuple[GroupRule, ...]
    created: float
    changed: float
    changed_by: str


class MemberRow(rows.Row, frozen=True, kw_only=True):
    """A port that is in groups, with the host of its replica."""

    tenant_id: TenantId
    network_id: NetworkId
    address: int
    host: HostName
    security_groups: tuple[str, ...]
    address6: int | None = None


async def every(connection: AsyncConnection, tenant: TenantId | None = None) -> list[GroupRow]:
    query = sa.select(security_groups).order_by(security_groups.c.name)
    if tenant is not None:
        query = query.where(security_groups.c.tenant_id == tenant)
    return await rows.many(connection, query, GroupRow)


async def members(
    connection: AsyncConnection, chosen: Iterable[NetworkId] | None = None, tenant: TenantId | None = None
) -> list[MemberRow]:
    """The ports that are in any group, of the chosen networks (None: of all)."""
    query = (
        sa.select(
            ports.c.tenant_id,
            ports.c.network_id,
            ports.c.address,
            ports.c.address6,
            replicas.c.host,
            services.c.security_groups,
        )
        .join(replicas, ports.c.replica_id == replicas.c.id)
        .join(services, replicas.c.service_id == services.c.id)
        .where(services.c.security_groups != sa.literal_column("'[]'"))
        .order_by(ports.c.address)
    )
    if chosen is not None:
        query = query.where(ports.c.network_id.in_(list(chosen)))
    if tenant is not None:
        query = query.where(ports.c.tenant_id == tenant)
    return await rows.many(connection, query, MemberRow)


async def used(connection: AsyncConnection, tenant: TenantId) -> dict[str, int]:
    """How many services of the tenant are in each group."""
    query = sa.select(services.c.security_groups).where(services.c.tenant_id == tenant)
    counted: dict[str, int] = {}
    for names in (await connection.execute(query)).scalars():
        for name in names:
            counted[name] = counted.get(name, 0) + 1
    return counted


async def insert(connection: AsyncConnection, row: GroupRow) -> None:
    await rows.insert(connection, security_groups, [row])


async def save(connection: AsyncConnection, row: GroupRow) -> None:
    values = rows.columns(row)
    await connection.execute(sa.update(security_groups).where(security_groups.c.id == row.id).values(values))


async def delete(connection: AsyncConnection, group: GroupId) -> None:
    await rows.delete(connection, security_groups, [group])
