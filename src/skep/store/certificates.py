"""The authority of the installation, with its key sealed, and the certificates that are worth something."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.store import rows
from skep.store.tables import authorities, certificates


class AuthorityRow(rows.Row, frozen=True, kw_only=True):
    """`place` counts up: the last one signs.  Two processes that make the first one clash on it."""

    fingerprint: str
    place: int
    certificate: str
    sealed_key: bytes
    created: float


class CertificateRow(rows.Row, frozen=True, kw_only=True):
    """A certificate without its row is worth nothing."""

    serial: str
    role: str
    name: str
    created: float
    expires: float


async def every_authority(connection: AsyncConnection) -> list[AuthorityRow]:
    """The one that signs comes last."""
    return await rows.many(connection, sa.select(authorities).order_by(authorities.c.place), AuthorityRow)


async def insert_authority(connection: AsyncConnection, authority: AuthorityRow) -> None:
    await rows.insert(connection, authorities, [authority])


async def insert(connection: AsyncConnection, certificate: CertificateRow) -> None:
    await rows.insert(connection, certificates, [certificate])


async def of(connection: AsyncConnection, role: str, name: str) -> list[CertificateRow]:
    query = sa.select(certificates).where(certificates.c.role == role, certificates.c.name == name)
    return await rows.many(connection, query.order_by(certificates.c.created), CertificateRow)


async def is_known(connection: AsyncConnection, role: str, name: str, serial: str, at: float) -> bool:
    """Whether the certificate is one of ours that was not revoked and whose time is not over."""
    query = sa.select(certificates.c.serial).where(
        certificates.c.serial == serial,
        certificates.c.role == role,
        certificates.c.name == name,
        certificates.c.expires > at,
    )
    return (await connection.execute(query)).first() is not None


async def revoke(connection: AsyncConnection, role: str, name: str) -> None:
    """Make every certificate of the process worthless."""
    await connection.execute(
        sa.delete(certificates).where(certificates.c.role == role, certificates.c.name == name)
    )


async def forget(connection: AsyncConnection, before: float) -> None:
    """Delete those whose time was over before that moment."""
    await connection.execute(sa.delete(certificates).where(certificates.c.expires < before))
