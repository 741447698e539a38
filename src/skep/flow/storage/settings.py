"""Limits that operators set, as rows: `execution.policing` puts them in force."""

from datetime import UTC, datetime

from msgspec import Struct
from msgspec.structs import asdict
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow.storage import tables
from skep.flow.storage.shared import now


class Setting(Struct, frozen=True, kw_only=True):
    """A policy with who set it, and when."""

    key: str
    concurrency: int | None = None
    rate: float | None = None
    burst: float | None = None
    weight: float | None = None
    by: str = ""
    at: datetime | None = None


async def every(connection: AsyncConnection) -> list[Setting]:
    """By key."""
    found = await connection.execute(select(tables.policies).order_by(tables.policies.c.key))
    return [Setting(**row._asdict() | {"at": datetime.fromtimestamp(row.at, UTC)}) for row in found]


async def save(connection: AsyncConnection, setting: Setting) -> None:
    await remove(connection, setting.key)
    values = asdict(setting) | {"at": now(connection)}
    await connection.execute(tables.policies.insert().values(values))


async def remove(connection: AsyncConnection, key: str) -> bool:
    """False: there was none."""
    gone = await connection.execute(delete(tables.policies).where(tables.policies.c.key == key))
    return gone.rowcount > 0
