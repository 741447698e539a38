"""Data disks: the volumes of apps, and those that stayed when their app went."""

from collections.abc import Iterable
from contextlib import suppress

from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.callers import Caller
from skep.control.clock import rfc3339
from skep.control.host_directory import HostDirectory
from skep.control.naming import disk_name
from skep.control.plans.victims import has_own_data
from skep.control.tenants import quotas
from skep.flow import Database, FlowEngine
from skep.model.errors import Conflict, InvalidInput, NotFound, Unavailable, Unsupported
from skep.model.host import DiskUsage
from skep.model.ids import Bytes, DiskId, HostName
from skep.model.views.base import Accepted
from skep.model.views.disks import DiskView
from skep.store import apps, clusters, disks, hosts, releases, replicas
from skep.store.disks import DiskRow

SMALLEST = 1024 * 1024


class Disks:
    def __init__(self, database: Database, flows: FlowEngine, hosts: HostDirectory) -> None:
        self._database = database
        self._flows = flows
        self._hosts = hosts

    async def remove(self, caller: Caller, disk: str) -> Accepted:
        """Delete a data disk and what is on it.  Raises Conflict: a replica uses it."""
        caller.must_change()
        async with self._database.read() as connection:
            row = await _find(connection, caller, disk)
            _must_be_settled(row)
            users = (await _users(connection, caller)).get(row.name, [])
            host = await hosts.get(connection, row.host)
        if users:
            raise Conflict(f"Disk {disk!r} is used by {', '.join(users)}: remove the app first.")
        if host is not None and host.fenced is not None:
            await self._database.write(lambda connection: disks.delete(connection, [row.id]))
            return Accepted(run=None, message=f"Disk {disk!r} is forgotten; its host {row.host} is off.")
        return await self._run(caller, row, "disk.delete", f"delete disk {row.name}")

    async def resize(self, caller: Caller, disk: str, size: int) -> Accepted:
        """Give the disk another size while it is in use.

        Raises:
            Exhausted: beyond the tenant's quota.
            Unsupported: smaller, in a cluster.  Machines know what a disk holds, and go down to that.
        """
        caller.must_change()
        if not SMALLEST <= size <= 64 * 1024**4:
            raise InvalidInput(f"{size} bytes is no size for a disk: between 1 MiB and 64 TiB.")
        async with self._database.read() as connection:
            row = await _find(connection, caller, disk)
            _must_be_settled(row)
            await _must_not_shrink(connection, row, size)
            await quotas.check_disk(connection, caller.tenant, row, size)
        return await self._run(caller, row, "disk.resize", f"resize disk {row.name}", size=size)

    async def list(self, caller: Caller) -> list[DiskView]:
        async with self._database.read() as connection:
            rows = [row for row in await disks.every(connection, caller.tenant) if row.kind == "data"]
            users = await _users(connection, caller)
            names = {row.id: row.name for row in await apps.every(connection, caller.tenant)}
        usage = await self._usage({row.host for row in rows})
        return [
            DiskView(
                id=row.id,
                name=row.name,
                kind=row.kind,
                size=row.size,
                used=usage[row.id].used if row.id in usage else Bytes(0),
                app=names.get(row.app_id) if row.app_id else None,
                attached_to=tuple(users.get(row.name, ())),
                host=row.host,
                side=row.side,
                created=rfc3339(row.created),
            )
            for row in rows
        ]

    async def _usage(self, names: Iterable[HostName]) -> dict[DiskId, DiskUsage]:
        """Of the hosts that answer."""
        usage: dict[DiskId, DiskUsage] = {}
        for name in names:
            with suppress(Unavailable):
                there = await self._hosts.answering(name)
                usage |= await there.disks.list()
        return usage

    async def _run(self, caller: Caller, row: DiskRow, flow: str, title: str, **values: object) -> Accepted:
        run = await self._flows.start(
            flow,
            {"disk": row.id, "host": row.host} | values,
            tenant=caller.tenant,
            title=title,
            labels={"app": row.app_id or "", "disk": row.id},
        )
        return Accepted(run=run)


async def _find(connection: AsyncConnection, caller: Caller, name: str) -> DiskRow:
    row = await disks.by_name(connection, caller.tenant, name) or await disks.get(connection, DiskId(name))
    if row is None or not caller.sees(row.tenant_id) or row.kind != "data":
        raise NotFound(f"There is no disk {name!r}; see 'skep disk ls'.")
    return row


def _must_be_settled(row: DiskRow) -> None:
    """Raises Conflict: its app is on the move, or may come back to it."""
    if row.side:
        raise Conflict(
            f"Disk {row.name!r} is {row.side}: its app moves. It goes with 'skep app move APP --confirm', or "
            "is the app's again with '--back'."
        )


async def _must_not_shrink(connection: AsyncConnection, row: DiskRow, size: int) -> None:
    """Raises Unsupported: no cluster makes claims smaller."""
    if size < row.size and row.host in {one.host for one in await clusters.every(connection)}:
        raise Unsupported(
            f"Disk {row.name!r} has {row.size} bytes and is in a cluster, where disks do not become smaller. "
            f"For one of {size} bytes give its volume another name in the Compose file, and copy the data."
        )


async def _users(connection: AsyncConnection, caller: Caller) -> dict[str, list[str]]:
    """The replicas (`shop/db-0`) that have each disk mounted, or are about to, by the disk's name."""
    users: dict[str, list[str]] = {}
    there: dict[tuple[str, str], list[int]] = {}
    for row in await replicas.find(connection, tenant=caller.tenant):
        there.setdefault((row.app_id, row.service), []).append(row.ordinal)
    for release in await releases.in_use(connection, caller.tenant):
        spec = release.spec
        for service, wanted in spec.services.items():
            now = there.get((release.app_id, service), [])
            soon = range(wanted.replicas) if has_own_data(wanted) or not now else []
            for ordinal in sorted({*now, *soon}):
                for mount in (mount for mount in wanted.mounts if mount.type == "volume"):
                    of_disk = users.setdefault(disk_name(spec.name, service, ordinal, mount, spec), [])
                    if (name := f"{spec.name}/{service}-{ordinal}") not in of_disk:
                        of_disk.append(name)
    return users
