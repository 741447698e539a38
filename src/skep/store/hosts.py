"""Regions, zones and hosts."""

from typing import cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.model.ids import Bytes, HostName, RegionName, ZoneName
from skep.store import rows
from skep.store.tables import hosts, regions, zones


class HostRow(rows.Row, frozen=True, kw_only=True):
    name: HostName
    zone: ZoneName
    state: str
    cpus: int
    memory: Bytes
    kernel: str
    cgroups: str
    boot_id: str


class ZoneRow(rows.Row, frozen=True, kw_only=True):
    name: ZoneName
    region: RegionName


async def every(connection: AsyncConnection) -> list[HostRow]:
    return await rows.many(connection, sa.select(hosts).order_by(hosts.c.name), HostRow)


async def every_zone(connection: AsyncConnection) -> list[ZoneRow]:
    return await rows.many(connection, sa.select(zones).order_by(zones.c.name), ZoneRow)


async def ensure_zone(connection: AsyncConnection, zone: ZoneRow) -> None:
    """Make the zone and its region unless they are there."""
    if not await _exists(connection, sa.select(regions.c.name).where(regions.c.name == zone.region)):
        await connection.execute(sa.insert(regions).values(name=zone.region))
    if not await _exists(connection, sa.select(zones.c.name).where(zones.c.name == zone.name)):
        await connection.execute(sa.insert(zones).values(**rows.columns(zone)))


async def save(connection: AsyncConnection, host: HostRow) -> None:
    """Insert the host, or bring its row up to date."""
    values = rows.columns(host)
    updated = await connection.execute(sa.update(hosts).where(hosts.c.name == host.name).values(**values))
    if cast("sa.CursorResult[object]", updated).rowcount == 0:
        await connection.execute(sa.insert(hosts).values(**values))


async def _exists(connection: AsyncConnection, query: sa.Select[tuple[str]]) -> bool:
    return (await connection.execute(query)).first() is not None
