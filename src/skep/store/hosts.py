"""Regions, zones, pools and hosts."""

from collections.abc import Iterable
from typing import Literal, cast

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow.storage.shared import now
from skep.model.host import HostFacts
from skep.model.ids import Bytes, HostName, RegionName, TenantId, ZoneName
from skep.model.topology import (
    CPU_OVERCOMMIT,
    MEMORY_OVERCOMMIT,
    HostLoad,
    Intent,
    Liveness,
    PoolName,
    shown,
)
from skep.store import rows
from skep.store.tables import clusters, disks, hosts, pools, regions, replicas, zones


class ZoneRow(rows.Row, frozen=True, kw_only=True):
    name: ZoneName
    region: RegionName


class PoolRow(rows.Row, frozen=True, kw_only=True):
    """`tenant_id`: only this tenant's replicas go there."""

    name: PoolName
    zone: ZoneName
    cpu_overcommit: float = CPU_OVERCOMMIT
    memory_overcommit: float = MEMORY_OVERCOMMIT
    tenant_id: TenantId | None = None
    labels: dict[str, str] = msgspec.field(default_factory=dict)


class HostRow(rows.Row, frozen=True, kw_only=True):
    """`state` is a `Liveness`, what control sees; `intent` an `Intent`, what the operator wants.

    `underlay`: the address that other hosts' overlays send to.  `address`: `host:port` of the agent, for
    streams.  `certificate`: the serial number of the one it proves itself with.  An overcommit of None is the
    pool's.  `seen` and `lease_expires` are times of the database's clock; None: nobody has asked it for signs
    of life, and so it is never lost.
    """

    name: HostName
    zone: ZoneName
    pool: PoolName
    state: str = Liveness.JOINING
    cpus: int = 0
    memory: Bytes = Bytes(0)
    kernel: str = ""
    cgroups: str = ""
    boot_id: str = ""
    intent: str = Intent.ACTIVE
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    cpu_overcommit: float | None = None
    memory_overcommit: float | None = None
    underlay: str = ""
    address: str = ""
    certificate: str | None = None
    version: str = ""
    load: HostLoad = HostLoad()
    seen: float | None = None
    lease_expires: float | None = None
    fenced: float | None = None
    """When its operator said that it is off for sure."""

    @property
    def facts(self) -> HostFacts:
        """As it told them last."""
        cgroups = msgspec.convert(self.cgroups, Literal["v1", "v2", "hybrid", "unknown"])
        return HostFacts(
            cpus=self.cpus, memory=self.memory, kernel=self.kernel, cgroups=cgroups, boot_id=self.boot_id
        )

    @property
    def shown(self) -> str:
        """State and intent in one word."""
        return shown(Liveness(self.state), Intent(self.intent))

    @property
    def answers(self) -> bool:
        return self.state == Liveness.READY

    @property
    def given_up(self) -> bool:
        return self.state == Liveness.GONE

    @property
    def leaving(self) -> bool:
        """What can go elsewhere is to go."""
        return self.fenced is not None if self.given_up else self.answers and self.intent == Intent.DRAINING

    @property
    def schedulable(self) -> bool:
        return self.answers and self.intent == Intent.ACTIVE


_OPERATORS = frozenset({"name", "zone", "pool", "intent", "labels", "cpu_overcommit", "memory_overcommit"})
"""What a host that comes again does not change."""


async def every(connection: AsyncConnection) -> list[HostRow]:
    return await rows.many(connection, sa.select(hosts).order_by(hosts.c.name), HostRow)


async def get(connection: AsyncConnection, host: HostName) -> HostRow | None:
    return await rows.one(connection, sa.select(hosts).where(hosts.c.name == host), HostRow)


async def every_zone(connection: AsyncConnection) -> list[ZoneRow]:
    return await rows.many(connection, sa.select(zones).order_by(zones.c.name), ZoneRow)


async def every_pool(connection: AsyncConnection) -> list[PoolRow]:
    return await rows.many(connection, sa.select(pools).order_by(pools.c.name), PoolRow)


async def pool(connection: AsyncConnection, name: PoolName) -> PoolRow | None:
    return await rows.one(connection, sa.select(pools).where(pools.c.name == name), PoolRow)


async def default_pool(connection: AsyncConnection, zone: ZoneName) -> PoolName:
    """Where a host of the zone goes that names no pool: the one named as the zone."""
    named = PoolName(zone)
    if await pool(connection, named) is None:
        await save_pool(connection, PoolRow(name=named, zone=zone))
    return named


async def ensure_zone(connection: AsyncConnection, zone: ZoneRow) -> None:
    """Make the zone, its region and its default pool unless they are there."""
    if not await _exists(connection, sa.select(regions.c.name).where(regions.c.name == zone.region)):
        await connection.execute(sa.insert(regions).values(name=zone.region))
    if not await _exists(connection, sa.select(zones.c.name).where(zones.c.name == zone.name)):
        await connection.execute(sa.insert(zones).values(**rows.columns(zone)))
    await default_pool(connection, zone.name)


async def delete_zone(connection: AsyncConnection, zone: ZoneName) -> None:
    """With its pools; none may have a host."""
    await connection.execute(sa.delete(pools).where(pools.c.zone == zone))
    await connection.execute(sa.delete(zones).where(zones.c.name == zone))


async def save_pool(connection: AsyncConnection, pool: PoolRow) -> None:
    """Insert the pool, or bring its row up to date."""
    values = rows.columns(pool)
    updated = await connection.execute(sa.update(pools).where(pools.c.name == pool.name).values(**values))
    if cast("sa.CursorResult[object]", updated).rowcount == 0:
        await connection.execute(sa.insert(pools).values(**values))


async def delete_pool(connection: AsyncConnection, name: PoolName) -> None:
    await connection.execute(sa.delete(pools).where(pools.c.name == name))


async def save(connection: AsyncConnection, host: HostRow) -> None:
    """Insert the host; of one that is there, what its operator decided stays as it is."""
    values = rows.columns(host)
    of_the_machine = {name: value for name, value in values.items() if name not in _OPERATORS}
    updated = await connection.execute(
        sa.update(hosts).where(hosts.c.name == host.name).values(**of_the_machine)
    )
    if cast("sa.CursorResult[object]", updated).rowcount == 0:
        await connection.execute(sa.insert(hosts).values(**values))


async def set_intent(connection: AsyncConnection, host: HostName, intent: Intent) -> None:
    await connection.execute(sa.update(hosts).where(hosts.c.name == host).values(intent=intent))


async def set_labels(connection: AsyncConnection, host: HostName, labels: dict[str, str]) -> None:
    await connection.execute(sa.update(hosts).where(hosts.c.name == host).values(labels=labels))


async def set_state(connection: AsyncConnection, host: HostName, state: Liveness) -> None:
    await connection.execute(sa.update(hosts).where(hosts.c.name == host).values(state=state))


async def give_up(connection: AsyncConnection, host: HostName, *, fenced: bool) -> None:
    """It is gone, and if it is `fenced`, what it ran is dead; that is not taken back."""
    values = {"state": Liveness.GONE} | ({"fenced": now(connection)} if fenced else {})
    await connection.execute(sa.update(hosts).where(hosts.c.name == host).values(**values))


async def forget_the_gone(connection: AsyncConnection) -> None:
    """Those on which nothing is any more.  A cluster's goes with its zone."""
    kept = set((await connection.execute(sa.select(clusters.c.host))).scalars())
    for row in await every(connection):
        if row.given_up and row.name not in kept and not await in_use(connection, row.name):
            await delete(connection, row.name)


async def set_certificate(connection: AsyncConnection, host: HostName, serial: str | None) -> None:
    await connection.execute(sa.update(hosts).where(hosts.c.name == host).values(certificate=serial))


async def set_address(connection: AsyncConnection, host: HostName, address: str) -> None:
    await connection.execute(sa.update(hosts).where(hosts.c.name == host).values(address=address))


async def delete(connection: AsyncConnection, host: HostName) -> None:
    await connection.execute(sa.delete(hosts).where(hosts.c.name == host))


async def in_use(connection: AsyncConnection, host: HostName) -> bool:
    """Whether a replica or a disk is there, so that its row must stay."""
    users = [sa.select(table.c.host).where(table.c.host == host).limit(1) for table in (replicas, disks)]
    return any([await _exists(connection, query) for query in users])


async def renew(
    connection: AsyncConnection,
    host: HostName,
    lease: float,
    *,
    facts: HostFacts | None = None,
    version: str | None = None,
    load: HostLoad | None = None,
) -> HostRow | None:
    """A sign of life: the host is ready for `lease` seconds more; its row of before, None: it is not ours.

    What is None stays as it was said last.  One that is gone stays so.
    """
    before = await get(connection, host)
    if before is None or before.state == Liveness.GONE:
        return None
    said: dict[str, object] = _what_it_is(facts) if facts is not None else {}
    said |= {"version": version} if version is not None else {}
    said |= {"load": load} if load is not None else {}
    time = now(connection)
    await connection.execute(
        sa.update(hosts)
        .where(hosts.c.name == host)
        .values(state=Liveness.READY, seen=time, lease_expires=time + lease, **said)
    )
    return before


def _what_it_is(facts: HostFacts) -> dict[str, object]:
    return {name: getattr(facts, name) for name in ("cpus", "memory", "kernel", "cgroups", "boot_id")}


async def silent(connection: AsyncConnection) -> list[HostName]:
    """Ready ones whose lease has expired: cheap, asked often."""
    query = sa.select(hosts.c.name).where(
        hosts.c.state == Liveness.READY, hosts.c.lease_expires < now(connection)
    )
    return list((await connection.execute(query.order_by(hosts.c.name))).scalars())


async def lose(connection: AsyncConnection, names: Iterable[HostName]) -> list[HostRow]:
    """Those of them whose lease is still expired become lost; answers them."""
    lost = []
    for name in names:
        expired = sa.and_(
            hosts.c.name == name,
            hosts.c.state == Liveness.READY,
            hosts.c.lease_expires < now(connection),
        )
        changed = await connection.execute(sa.update(hosts).where(expired).values(state=Liveness.LOST))
        row = await get(connection, name)
        if cast("sa.CursorResult[object]", changed).rowcount and row is not None:
            lost.append(row)
    return lost


async def _exists(connection: AsyncConnection, query: sa.Select[tuple[str]]) -> bool:
    return (await connection.execute(query)).first() is not None
