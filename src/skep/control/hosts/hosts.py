"""Hosts: look at them, keep new replicas off them, empty them, remove them.  For operators."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from sqlalchemy.ext.asyncio import AsyncConnection

from skep.bus.bus import Bus
from skep.control.apps.draining import Draining, Staying
from skep.control.callers import Caller
from skep.control.clock import rfc3339
from skep.control.hosts.enrolment import Enrolment
from skep.flow import Database
from skep.model.errors import Conflict, InvalidInput, NotFound
from skep.model.ids import HostName
from skep.model.topology import Intent
from skep.model.views.hosts import DrainView, HostDetail, HostView, StayingView
from skep.store import apps, clusters, disks, hosts, replicas
from skep.store.clusters import ClusterRow
from skep.store.hosts import HostRow, PoolRow

_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?")
_MOST_LABELS = 64


class Hosts:
    def __init__(self, database: Database, draining: Draining, enrolment: Enrolment, bus: Bus) -> None:
        self._database = database
        self._bus = bus
        self._draining = draining
        self._enrolment = enrolment

    async def show(self, caller: Caller, host: str) -> HostDetail:
        """The host with all that is on it."""
        caller.must_operate()
        async with self._database.read() as connection:
            row = await _find(connection, host)
            (view,) = await _views(connection, [row])
            names = {app.id: app.name for app in await apps.every(connection)}
            members = await replicas.on_host(connection, row.name)
            data = [disk.name for disk in await disks.every(connection) if disk.host == row.name]
            kept = [disk.name for disk in await disks.every(connection) if disk.kind == "data"]
        outlook = await self._draining.outlook(row.name) if row.leaving else []
        return HostDetail(
            host=view,
            replicas=tuple(f"{names[one.app_id]}/{one.name}" for one in members),
            disks=tuple(sorted(set(data) & set(kept))),
            staying=_staying(outlook),
        )

    async def cordon(self, caller: Caller, host: str) -> HostView:
        """Place nothing new on it; what it runs goes on."""
        return await self._intend(caller, host, Intent.CORDONED)

    async def uncordon(self, caller: Caller, host: str) -> HostView:
        """Place replicas on it again; ends a drain, too."""
        return await self._intend(caller, host, Intent.ACTIVE)

    async def drain(self, caller: Caller, host: str) -> DrainView:
        """Cordon the host and start moving what has no data there; what cannot go yet goes when it can.

        Raises:
            Conflict: it does not answer, so nothing can be taken from it; or it is a cluster, of which apps
                are as a whole, and whose nodes are its own.
        """
        caller.must_operate()
        async with self._database.read() as connection:
            row = await _find(connection, host)
            _must_be_machine(row, await clusters.every(connection))
        if not row.answers:
            raise Conflict(f"Host {host!r} is {row.shown}: it must answer to be drained.")
        await self._intend(caller, host, Intent.DRAINING)
        found = await self._draining.move_off(row.name)
        return DrainView(host=row.name, runs=found.runs, staying=_staying(found.staying))

    async def label(self, caller: Caller, host: str, labels: Mapping[str, str | None]) -> HostView:
        """Set labels, and remove those whose value is None; the others stay."""
        caller.must_operate()
        for key in labels:
            if not _LABEL.fullmatch(key):
                raise InvalidInput(f"{key[:80]!r} is no label: use letters, digits, '.', '_', '/' and '-'.")

        async def change(connection: AsyncConnection) -> HostView:
            row = await _find(connection, host)
            changed: dict[str, str | None] = {**row.labels, **labels}
            merged = {key: value for key, value in changed.items() if value is not None}
            if len(merged) > _MOST_LABELS:
                raise InvalidInput(f"{len(merged)} labels; a host has {_MOST_LABELS} at most.")
            await hosts.set_labels(connection, row.name, merged)
            (view,) = await _views(connection, [await _find(connection, host)])
            return view

        return await self._database.write(change)

    async def remove(self, caller: Caller, host: str, *, lost: bool = False, fenced: bool = False) -> None:
        """Take the host out of the installation; its certificates are worthless from then on.

        `lost`: it is lost for good, with what it ran.  Its replicas keep their addresses and are shown as
        unknown, for they may be running.  `fenced`: it is lost, and off or cut from the network for sure.
        Then its replicas are made again elsewhere; `show` says which cannot be, and what can be done.  This
        may also be said of a host that was removed before.

        Raises:
            Conflict: something is on it, and it is not both lost and said to be; or it is said to be off, and
                answers.
            Unavailable: the bus does not answer, or cannot close the host's account; it still is a host.
        """
        caller.must_operate()

        async def change(connection: AsyncConnection) -> None:
            row, used = await _removable(connection, host, lost=lost, fenced=fenced)
            await self._enrolment.revoke(connection, row.name)
            if used:
                await hosts.give_up(connection, row.name, fenced=fenced)
            else:
                await hosts.delete(connection, row.name)

        async with self._database.read() as connection:
            row, used = await _removable(connection, host, lost=lost, fenced=fenced)
        await self._enrolment.forget(row.name)
        await self._bus.drop(f"agent.{row.name}")  # or a later host of that name would do what waits there
        await self._database.write(change)
        if used and fenced:
            await self._draining.move_off(row.name)

    async def list(self, caller: Caller) -> list[HostView]:
        caller.must_operate()
        async with self._database.read() as connection:
            return await _views(connection, await hosts.every(connection))

    async def _intend(self, caller: Caller, host: str, intent: Intent) -> HostView:
        caller.must_operate()

        async def change(connection: AsyncConnection) -> HostView:
            row = await _find(connection, host)
            await hosts.set_intent(connection, row.name, intent)
            (view,) = await _views(connection, [await _find(connection, host)])
            return view

        return await self._database.write(change)


def _staying(found: Iterable[Staying]) -> tuple[StayingView, ...]:
    return tuple(StayingView(replica=one.replica, reason=one.reason, waits=one.waits) for one in found)


async def _removable(
    connection: AsyncConnection, host: str, *, lost: bool, fenced: bool
) -> tuple[HostRow, bool]:
    """The host, and whether something is on it that is given up.  Raises Conflict: it cannot be removed."""
    row = await _find(connection, host)
    used = await hosts.in_use(connection, row.name)
    if not used and any(one.host == row.name for one in await clusters.every(connection)):
        raise Conflict(f"Host {host!r} is the cluster of zone {row.zone!r}: skep zone rm {row.zone}")
    if fenced and row.answers:
        raise Conflict(f"Host {host!r} answers: it is neither off nor cut from the network.")
    if used and row.answers:
        raise Conflict(
            f"Replicas or disks are on host {host!r}: see 'skep host show {host}', and empty it with "
            f"'skep host drain {host}'."
        )
    if used and not (lost or fenced):
        raise Conflict(
            f"Host {host!r} does not answer, and what is on it is unknown. If it never comes back, "
            f"say so: skep host rm {host} --lost, or --fenced if it is off for sure, so that its replicas "
            "are made again elsewhere."
        )
    return row, used


def _must_be_machine(row: HostRow, known: Iterable[ClusterRow]) -> None:
    if any(one.host == row.name for one in known):
        raise Conflict(
            f"Host {row.name!r} is a whole cluster. A node of it is emptied with 'kubectl drain NODE "
            "--ignore-daemonsets --delete-emptydir-data': what runs there comes to other nodes by itself. "
            f"'skep host cordon {row.name}' keeps new apps out of the cluster; those that are there are "
            "moved or removed one by one."
        )


async def _find(connection: AsyncConnection, name: str) -> HostRow:
    row = await hosts.get(connection, HostName(name))
    if row is None:
        raise NotFound(f"There is no host {name!r}; see 'skep host ls'.")
    return row


async def _views(connection: AsyncConnection, rows: Iterable[HostRow]) -> list[HostView]:
    zones = {zone.name: zone.region for zone in await hosts.every_zone(connection)}
    pools = {pool.name: pool for pool in await hosts.every_pool(connection)}
    count = Counter(replica.host for replica in await replicas.find(connection))
    return [_view(row, zones[row.zone], pools[row.pool], count[row.name]) for row in rows]


def _view(row: HostRow, region: str, pool: PoolRow, count: int) -> HostView:
    return HostView(
        name=row.name,
        zone=row.zone,
        region=region,
        pool=row.pool,
        cpus=row.cpus,
        memory=row.memory,
        kernel=row.kernel,
        cgroups=row.cgroups,
        state=row.shown,
        replicas=count,
        pool_total=row.load.disk_total,
        pool_used=row.load.disk_used,
        labels=row.labels,
        cpu_overcommit=row.cpu_overcommit or pool.cpu_overcommit,
        memory_overcommit=row.memory_overcommit or pool.memory_overcommit,
        address=row.address,
        underlay=row.underlay,
        version=row.version,
        seen=rfc3339(row.seen) if row.seen is not None else None,
    )
