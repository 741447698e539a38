"""Tenants: who owns things."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.model.ids import TenantId
from skep.model.names import TenantName
from skep.model.views.tenants import Quota
from skep.store import rows
from skep.store.tables import tenants


class TenantRow(rows.Row, frozen=True, kw_only=True):
    id: TenantId
    name: TenantName
    quota: Quota
    created: float


async def every(connection: AsyncConnection) -> list[TenantRow]:
    return await rows.many(connection, sa.select(tenants).order_by(tenants.c.name), TenantRow)


async def get(connection: AsyncConnection, tenant: TenantId) -> TenantRow | None:
    return await rows.one(connection, sa.select(tenants).where(tenants.c.id == tenant), TenantRow)


async def by_name(connection: AsyncConnection, name: str) -> TenantRow | None:
    return await rows.one(connection, sa.select(tenants).where(tenants.c.name == name), TenantRow)


async def insert(connection: AsyncConnection, tenant: TenantRow) -> None:
    await rows.insert(connection, tenants, [tenant])


async def delete(connection: AsyncConnection, tenant: TenantId) -> None:
    await rows.delete(connection, tenants, [tenant])
