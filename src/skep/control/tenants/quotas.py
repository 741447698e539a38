"""Quotas: whether a tenant may have what is asked for, beside all it has and all it is being given."""

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.naming import disk_name
from skep.model.errors import Exhausted
from skep.model.ids import AppId, Bytes, TenantId
from skep.model.spec import AppSpec
from skep.model.views.tenants import Quota
from skep.store import apps, disks, releases, tenants
from skep.store.disks import DiskRow

NOTHING = Quota(apps=0, replicas=0, cpus=0.0, memory=Bytes(0), disk=Bytes(0), published_ports=0)


class Defaults(msgspec.Struct, frozen=True, kw_only=True):
    """What a volume or system disk, and a replica, get that ask for nothing."""

    disk: Bytes
    memory: Bytes


async def check_app(
    connection: AsyncConnection,
    tenant: TenantId,
    app: AppId,
    spec: AppSpec,
    defaults: Defaults,
    more: int = 0,
) -> None:
    """Whether the tenant may have this app beside its others, and `more` bytes of disks for its second side.

    Raises:
        Exhausted: names the bound, what it is, and what would be used.
    """
    rows = await disks.every(connection, tenant)
    others = await _others(connection, tenant, app, rows, defaults)
    kept = sum(row.size for row in rows if row.app_id != app or row.kind == "data")
    wanted = _demand(spec, rows, defaults)
    await _check(connection, tenant, _add(_add(others, wanted), _disk(kept + more)))


async def check_disk(connection: AsyncConnection, tenant: TenantId, disk: DiskRow, size: int) -> None:
    """Whether the disk may have this size.  A smaller one always may.

    Raises:
        Exhausted: names the bound, and what would be used.
    """
    if size > disk.size:
        rows = await disks.every(connection, tenant)
        await _check(connection, tenant, _disk(sum(row.size for row in rows) - disk.size + size))


async def _check(connection: AsyncConnection, tenant: TenantId, wanted: Quota) -> None:
    row = await tenants.get(connection, tenant)
    quota = row.quota if row else Quota()
    for name in wanted.__struct_fields__:
        total, limit = getattr(wanted, name), getattr(quota, name)
        if total > limit:
            raise Exhausted(
                f"The tenant's quota of {limit} {name.replace('_', ' ')} would be exceeded ({total}). "
                "Remove what is not needed, or ask the operator for more."
            )


async def _others(
    connection: AsyncConnection, tenant: TenantId, without: AppId, rows: list[DiskRow], defaults: Defaults
) -> Quota:
    """What the tenant's other apps use, or will when the runs that are under way have ended."""
    owners = {row.app_id for row in rows}
    demands = {row.id: NOTHING for row in await apps.every(connection, tenant) if row.id != without}
    for release in await releases.in_use(connection, tenant):
        if release.app_id in demands:
            demand = _demand(release.spec, rows, defaults)
            if release.app_id in owners:  # whose disks are rows by now, and counted as such
                demand = msgspec.structs.replace(demand, disk=Bytes(0))
            demands[release.app_id] = _larger(demands[release.app_id], demand)
    total = NOTHING
    for demand in demands.values():
        total = _add(total, demand)
    return msgspec.structs.replace(total, apps=len(demands))


def _demand(spec: AppSpec, rows: list[DiskRow], defaults: Defaults) -> Quota:
    """What an app needs beside the data disks that are there."""
    services = spec.services.values()
    system = sum((service.x_skep.system_disk or defaults.disk) * service.replicas for service in services)
    present = {row.name for row in rows}
    data = sum(size for name, size in _data_disks(spec, defaults).items() if name not in present)
    return Quota(
        apps=1,
        replicas=sum(service.replicas for service in services),
        cpus=sum((service.resources.cpus or 0.0) * service.replicas for service in services),
        memory=Bytes(
            sum((service.resources.memory or defaults.memory) * service.replicas for service in services)
        ),
        disk=Bytes(data + system),
        published_ports=sum(len(service.ports) for service in services),
    )


def _data_disks(spec: AppSpec, defaults: Defaults) -> dict[str, int]:
    """The size of every data disk the app has when it is whole, by name."""
    sizes = {}
    for name, service in spec.services.items():
        for mount in service.mounts:
            volume = spec.volumes.get(mount.source)
            if mount.type != "volume" or (volume is not None and volume.external):
                continue
            for ordinal in range(service.replicas):
                size = (volume.size if volume else None) or defaults.disk
                sizes[disk_name(spec.name, name, ordinal, mount, spec)] = int(size)
    return sizes


def _disk(size: int) -> Quota:
    return msgspec.structs.replace(NOTHING, disk=Bytes(size))


def _add(left: Quota, right: Quota) -> Quota:
    return Quota(**{name: getattr(left, name) + getattr(right, name) for name in left.__struct_fields__})


def _larger(left: Quota, right: Quota) -> Quota:
    return Quota(**{name: max(getattr(left, name), getattr(right, name)) for name in left.__struct_fields__})
