"""Apps and the contents of their configs and secrets."""

from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.model.ids import AppId, ReleaseId, TenantId
from skep.model.names import AppName
from skep.store import rows
from skep.store.tables import apps, files


class AppRow(rows.Row, frozen=True, kw_only=True):
    """`version` counts changes of what the app is made of: a plan holds only for the version it was made of.

    `removing` apps are on their way out, with their volumes if `remove_volumes`.
    """

    id: AppId
    tenant_id: TenantId
    name: AppName
    release_id: ReleaseId | None = None
    revision: int = 0
    version: int = 0
    removing: bool = False
    remove_volumes: bool = False
    created: float
    updated: float


async def every(connection: AsyncConnection, tenant: TenantId | None = None) -> list[AppRow]:
    query = sa.select(apps).order_by(apps.c.name)
    return await rows.many(
        connection, query if tenant is None else query.where(apps.c.tenant_id == tenant), AppRow
    )


async def get(connection: AsyncConnection, app: AppId) -> AppRow | None:
    return await rows.one(connection, sa.select(apps).where(apps.c.id == app), AppRow)


async def by_name(connection: AsyncConnection, tenant: TenantId, name: str) -> AppRow | None:
    query = sa.select(apps).where(apps.c.tenant_id == tenant, apps.c.name == name)
    return await rows.one(connection, query, AppRow)


async def insert(connection: AsyncConnection, app: AppRow) -> None:
    await rows.insert(connection, apps, [app])


async def save(connection: AsyncConnection, app: AppRow) -> None:
    await connection.execute(sa.update(apps).where(apps.c.id == app.id).values(**rows.columns(app)))


async def delete(connection: AsyncConnection, app: AppId) -> None:
    await rows.delete(connection, apps, [app])


async def save_files(connection: AsyncConnection, tenant: TenantId, contents: Mapping[str, bytes]) -> None:
    """Keep contents by digest; what is there already stays."""
    known = await known_files(connection, tenant)
    new = [
        {"digest": digest, "tenant_id": tenant, "content": content}
        for digest, content in contents.items()
        if digest not in known
    ]
    if new:
        await connection.execute(sa.insert(files), new)


async def known_files(connection: AsyncConnection, tenant: TenantId) -> set[str]:
    """Digests of the contents that the tenant itself has sent."""
    query = sa.select(files.c.digest).where(files.c.tenant_id == tenant)
    return set((await connection.execute(query)).scalars())


async def owners(connection: AsyncConnection, digest: str) -> set[TenantId]:
    """The tenants that have given us the content with this digest."""
    query = sa.select(files.c.tenant_id).where(files.c.digest == digest)
    return {row.tenant_id for row in await connection.execute(query)}


async def file(connection: AsyncConnection, digest: str) -> bytes | None:
    found = await connection.execute(sa.select(files.c.content).where(files.c.digest == digest).limit(1))
    return found.scalar_one_or_none()
