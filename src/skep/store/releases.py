"""Releases: immutable revisions of an app, with the images they resolved to."""

from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.model.ids import AppId, ReleaseId, TenantId
from skep.model.images import ImageInfo
from skep.model.spec import AppSpec
from skep.store import rows
from skep.store.tables import releases


class ReleaseRow(rows.Row, frozen=True, kw_only=True):
    """`state`: pending, current, superseded, failed.  `plan`: control's plan that leads to it, as JSON.
    `images`: by service, as resolved when it was released.  `note`: why it was made, in words."""

    id: ReleaseId
    tenant_id: TenantId
    app_id: AppId
    revision: int
    state: str
    spec: AppSpec
    plan: str
    images: dict[str, ImageInfo]
    created_by: str
    created: float
    note: str = ""


async def get(connection: AsyncConnection, release: ReleaseId) -> ReleaseRow | None:
    return await rows.one(connection, sa.select(releases).where(releases.c.id == release), ReleaseRow)


async def of_app(connection: AsyncConnection, app: AppId) -> list[ReleaseRow]:
    query = sa.select(releases).where(releases.c.app_id == app).order_by(releases.c.revision.desc())
    return await rows.many(connection, query, ReleaseRow)


async def current(connection: AsyncConnection) -> list[ReleaseRow]:
    """The current release of every app."""
    return await rows.many(connection, sa.select(releases).where(releases.c.state == "current"), ReleaseRow)


async def wanted(connection: AsyncConnection) -> list[ReleaseRow]:
    """The current release of every app, and of those that have none yet the one that is being made."""
    query = sa.select(releases).where(releases.c.state.in_(["pending", "current"]))
    found = await rows.many(connection, query, ReleaseRow)
    return list({row.app_id: row for row in sorted(found, key=lambda row: row.state == "current")}.values())


async def in_use(connection: AsyncConnection, tenant: TenantId) -> list[ReleaseRow]:
    """What the tenant's apps are, and what runs are making of them."""
    query = sa.select(releases).where(
        releases.c.tenant_id == tenant, releases.c.state.in_(["pending", "current"])
    )
    return await rows.many(connection, query, ReleaseRow)


async def highest_revision(connection: AsyncConnection, app: AppId) -> int:
    query = sa.select(sa.func.max(releases.c.revision)).where(releases.c.app_id == app)
    return (await connection.execute(query)).scalar_one_or_none() or 0


async def insert(connection: AsyncConnection, release: ReleaseRow) -> None:
    await rows.insert(connection, releases, [release])


async def set_state(connection: AsyncConnection, release: ReleaseId, state: str) -> None:
    await connection.execute(sa.update(releases).where(releases.c.id == release).values(state=state))


async def set_images(connection: AsyncConnection, release: ReleaseId, images: dict[str, ImageInfo]) -> None:
    await connection.execute(sa.update(releases).where(releases.c.id == release).values(images=images))


async def delete(connection: AsyncConnection, ids: Iterable[ReleaseId]) -> None:
    await rows.delete(connection, releases, ids)
