"""Disks: data disks of volumes and system disks of containers."""

from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.model.ids import AppId, Bytes, DiskId, HostName, TenantId
from skep.store import rows
from skep.store.tables import disks

ARRIVING = "arriving"
LEFT = "left"
_MARK = "~"


class DiskRow(rows.Row, frozen=True, kw_only=True):
    """`name` is `shop_data` for a volume; a system disk is named by its id.

    `side`: of an app that moves, `arriving` is what it will have, `left` what it had where it was until that
    is confirmed.  Beside the disk that the app has such a one bears its id behind the name.
    """

    id: DiskId
    tenant_id: TenantId
    app_id: AppId | None
    name: str
    kind: str
    size: Bytes
    host: HostName
    created: float
    side: str = ""

    @property
    def volume(self) -> str:
        """What it is called as one that the app has."""
        return self.name.partition(_MARK)[0]


def beside(volume: str, disk: DiskId) -> str:
    """The name of one that stands beside the disk that the app has."""
    return f"{volume}{_MARK}{disk}"


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


async def set_side(connection: AsyncConnection, disk: DiskId, volume: str, side: str) -> None:
    """From now on the disk is the one that the app has of the volume (""), or one beside it."""
    name = beside(volume, disk) if side else volume
    await connection.execute(sa.update(disks).where(disks.c.id == disk).values(name=name, side=side))


async def set_size(connection: AsyncConnection, disk: DiskId, size: Bytes) -> None:
    await connection.execute(sa.update(disks).where(disks.c.id == disk).values(size=size))


async def set_host(connection: AsyncConnection, disk: DiskId, host: HostName) -> None:
    await connection.execute(sa.update(disks).where(disks.c.id == disk).values(host=host))


async def set_app(connection: AsyncConnection, ids: Iterable[str], app: AppId | None) -> None:
    """Whose volume a disk is; None: nobody's, it waits for an app that names it."""
    for disk in ids:
        await connection.execute(sa.update(disks).where(disks.c.id == disk).values(app_id=app))
