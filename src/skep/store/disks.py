"""Disks: data disks of volumes and system disks of containers."""

from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.model.ids import AppId, Bytes, DiskId, HostName, TenantId
from skep.store import rows
from skep.store.tables import disks


class DiskRow(rows.Row, frozen=True, kw_only=True):
    """`name` is `shop_data` for a volume; a system disk is named by its id."""

    id: DiskId
    tenant_id: TenantId
    app_id: AppId | None
    name: str
    kind: str
    size: Bytes
    host: HostName
    created: float


async def every(
    connection: AsyncConnection, tenant: TenantId | None = None, app: AppId | None = None
) -> list[DiskRow]:
    query = sa.select(disks).order_by(disks.c.name)
    if tenant is not None:
        query = query.where(disks.c.tenant_id == tenant)
    if app is not None:
        query = query.where(disks.c.app_id == app)
    return await rows.many(connection, query, DiskRow)


async def get(connection: AsyncConnection, disk: DiskId) -> DiskRow | None:
    return await rows.one(connection, sa.select(disks).where(disks.c.id == disk), DiskRow)


async def by_name(connection: AsyncConnection, tenant: TenantId, name: str) -> DiskRow | None:
    query = sa.select(disks).where(disks.c.tenant_id == tenant, disks.c.name == name)
    return await rows.one(connection, query, DiskRow)


async def insert(connection: AsyncConnection, new: Iterable[DiskRow]) -> None:
    await rows.insert(connection, disks, new)


async def delete(connection: AsyncConnection, ids: Iterable[str]) -> None:
    await rows.delete(connection, disks, ids)


async def set_size(connection: AsyncConnection, disk: DiskId, size: Bytes) -> None:
    await connection.execute(sa.update(disks).where(disks.c.id == disk).values(size=size))


async def set_host(connection: AsyncConnection, disk: DiskId, host: HostName) -> None:
    await connection.execute(sa.update(disks).where(disks.c.id == disk).values(host=host))


async def set_app(connection: AsyncConnection, ids: Iterable[str], app: AppId | None) -> None:
    """Whose volume a disk is; None: nobody's, it waits for an app that names it."""
    for disk in ids:
        await connection.execute(sa.update(disks).where(disks.c.id == disk).values(app_id=app))
