"""Snapshots of data disks, kept so that a release can be taken back with its data."""

from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.model.ids import DiskId, HostName, ReleaseId, SnapshotId, TenantId
from skep.store import rows
from skep.store.tables import snapshots


class SnapshotRow(rows.Row, frozen=True, kw_only=True):
    """`release_id`: the release whose data it holds, as that release left it; None: it is gone."""

    id: SnapshotId
    tenant_id: TenantId
    disk_id: DiskId
    release_id: ReleaseId | None
    host: HostName
    created: float


async def every(
    connection: AsyncConnection, *, tenant: TenantId | None = None, release: ReleaseId | None = None
) -> list[SnapshotRow]:
    """Oldest first."""
    query = sa.select(snapshots).order_by(snapshots.c.created, snapshots.c.id)
    if tenant is not None:
        query = query.where(snapshots.c.tenant_id == tenant)
    if release is not None:
        query = query.where(snapshots.c.release_id == release)
    return await rows.many(connection, query, SnapshotRow)


async def insert(connection: AsyncConnection, new: Iterable[SnapshotRow]) -> None:
    await rows.insert(connection, snapshots, new)


async def delete_of(connection: AsyncConnection, ids: Iterable[ReleaseId]) -> None:
    """Those that hold the data of these releases; their hosts are cleaned up by the reconciler."""
    await connection.execute(sa.delete(snapshots).where(snapshots.c.release_id.in_(list(ids))))


async def delete(connection: AsyncConnection, ids: Iterable[str]) -> None:
    await rows.delete(connection, snapshots, ids)
