"""Image references and what they point at.  `tenant_id` "" is the operator's, shared with everybody."""

from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.model.ids import Digest, ImageId
from skep.model.images import ImageInfo
from skep.store import rows
from skep.store.tables import images, releases

SHARED = ""


class ImageRow(rows.Row, frozen=True, kw_only=True):
    id: ImageId
    tenant_id: str
    reference: str
    digest: Digest
    info: ImageInfo
    created: float


async def visible(connection: AsyncConnection, tenant: str | None) -> list[ImageRow]:
    """The tenant's own and the shared images; None: everybody's."""
    query = sa.select(images).order_by(images.c.reference)
    if tenant is not None:
        query = query.where(images.c.tenant_id.in_([tenant, SHARED]))
    return await rows.many(connection, query, ImageRow)


async def resolve(connection: AsyncConnection, tenant: str, references: Iterable[str]) -> dict[str, ImageRow]:
    """What each reference means to the tenant: its own image before a shared one."""
    query = sa.select(images).where(
        images.c.tenant_id.in_([tenant, SHARED]), images.c.reference.in_(list(references))
    )
    found = await rows.many(connection, query.order_by(images.c.tenant_id), ImageRow)
    return {row.reference: row for row in found}


async def save(connection: AsyncConnection, image: ImageRow) -> None:
    """Point the reference at the image, whether it was there or not."""
    await remove(connection, image.tenant_id, image.reference)
    await rows.insert(connection, images, [image])


async def remove(connection: AsyncConnection, tenant: str, reference: str) -> None:
    await connection.execute(
        sa.delete(images).where(images.c.tenant_id == tenant, images.c.reference == reference)
    )


async def referenced_by_releases(connection: AsyncConnection) -> set[str]:
    """Digests that releases resolved to, whatever their references point at today; failed ones need none."""
    query = sa.select(releases.c.images).where(releases.c.state != "failed")
    found = (await connection.execute(query)).scalars()
    return {info.digest for images_of in found for info in images_of.values()}
