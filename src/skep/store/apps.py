"""Apps and the contents of their configs and secrets."""

from collections.abc import Collection, Mapping

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.model.ids import AppId, ReleaseId, TenantId
from skep.model.names import AppName
from skep.store import rows
from skep.store.tables import apps, files, releases


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


async def removing(connection: AsyncConnection) -> set[AppId]:
    """Those that are on their way out."""
    return set((await connection.execute(sa.select(apps.c.id).where(apps.c.removing))).scalars())


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


async def hold_files(connection: AsyncConnection, tenant: TenantId, digests: Collection[str]) -> bool:
    """Whether these contents are here, and stay until the transaction ends.

    One that is being forgotten at this moment is not here.
    """
    query = sa.select(files.c.digest).where(files.c.tenant_id == tenant, files.c.digest.in_(list(digests)))
    found = await connection.execute(query.with_for_update(read=True, skip_locked=True))
    return set(digests) <= set(found.scalars())


async def forget_files(connection: AsyncConnection) -> None:
    """Delete the contents that no release needs, save those that one is being made of at this moment."""
    query = sa.select(files.c.tenant_id, files.c.digest).with_for_update(skip_locked=True)
    locked = {(row.tenant_id, row.digest) for row in await connection.execute(query)}
    # after the locks: a release that was made before is seen, one that is made later waits for them
    for tenant, digest in locked - await _needed_files(connection):
        await connection.execute(
            sa.delete(files).where(files.c.tenant_id == tenant, files.c.digest == digest)
        )


async def _needed_files(connection: AsyncConnection) -> set[tuple[str, str | None]]:
    query = sa.select(releases.c.tenant_id, releases.c.spec).where(releases.c.state != "failed")
    found = list(await connection.execute(query))
    return {
        (row.tenant_id, file.digest)
        for row in found
        for file in [*row.spec.configs.values(), *row.spec.secrets.values()]
    }


async def file(connection: AsyncConnection, digest: str) -> bytes | None:
    found = await connection.execute(sa.select(files.c.content).where(files.c.digest == digest).limit(1))
    return found.scalar_one_or_none()
