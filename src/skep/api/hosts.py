"""Hosts, zones and pools; for admins."""

from litestar import Router, delete, get, patch, post, put
from litestar.params import FromPath, FromQuery, JSONBody

from skep.api.asking import Caller, Control
from skep.api.bodies import NewZone, SetLabels, SetPool
from skep.model.views.hosts import DrainView, HostDetail, HostView, PoolView, ZoneView


@get("/hosts")
async def list_hosts(control: Control, caller: Caller) -> list[HostView]:
    """The hosts with what they have and what is used."""
    return await control.hosts.list(caller)


@get("/hosts/{host:str}")
async def show_host(control: Control, caller: Caller, host: FromPath[str]) -> HostDetail:
    """One host, with the replicas and disks that are on it."""
    return await control.hosts.show(caller, host)


@post("/hosts/{host:str}/cordon", status_code=200)
async def cordon_host(control: Control, caller: Caller, host: FromPath[str]) -> HostView:
    """Place nothing new on it; what it runs goes on."""
    return await control.hosts.cordon(caller, host)


@post("/hosts/{host:str}/uncordon", status_code=200)
async def uncordon_host(control: Control, caller: Caller, host: FromPath[str]) -> HostView:
    """Place replicas on it again."""
    return await control.hosts.uncordon(caller, host)


@post("/hosts/{host:str}/drain", status_code=202)
async def drain_host(control: Control, caller: Caller, host: FromPath[str]) -> DrainView:
    """Cordon the host and move what has no data there; answers the runs that do it, and what stays."""
    return await control.hosts.drain(caller, host)


@patch("/hosts/{host:str}/labels")
async def label_host(
    control: Control, caller: Caller, host: FromPath[str], data: JSONBody[SetLabels]
) -> HostView:
    """Set labels; those that are null are removed, the others stay."""
    return await control.hosts.label(caller, host, data.labels)


@delete("/hosts/{host:str}", status_code=204)
async def remove_host(
    control: Control,
    caller: Caller,
    host: FromPath[str],
    lost: FromQuery[bool] = False,
    fenced: FromQuery[bool] = False,
) -> None:
    """Take the host out of the installation; `lost`: with what it ran, since it never comes back.

    `fenced`: it is off or cut from the network for sure, so what it ran is made again elsewhere; until that
    has happened the host can be looked at, and says what stays and why.
    """
    await control.hosts.remove(caller, host, lost=lost, fenced=fenced)


@get("/zones")
async def list_zones(control: Control, caller: Caller) -> list[ZoneView]:
    """The zones and how many hosts each has."""
    return await control.zones.list(caller)


@post("/zones", status_code=200)
async def add_zone(control: Control, caller: Caller, data: JSONBody[NewZone]) -> ZoneView:
    """Make a zone with its region and a pool of the same name, unless it is there."""
    return await control.zones.add(caller, data.name, data.region)


@delete("/zones/{zone:str}", status_code=204)
async def remove_zone(
    control: Control, caller: Caller, zone: FromPath[str], lost: FromQuery[bool] = False
) -> None:
    """Remove a zone without hosts, or one on a cluster with nothing in it, and its pools.

    In the cluster only what is skep's is deleted; `lost`: nothing, since it is gone for good.
    """
    await control.zones.remove(caller, zone, lost=lost)


@get("/pools")
async def list_pools(control: Control, caller: Caller) -> list[PoolView]:
    """The pools, with how much their hosts may promise and to whom."""
    return await control.pools.list(caller)


@put("/pools/{pool:str}")
async def set_pool(
    control: Control, caller: Caller, pool: FromPath[str], data: JSONBody[SetPool]
) -> PoolView:
    """Make the pool, or change it; what is null stays as it is."""
    return await control.pools.put(
        caller,
        pool,
        zone=data.zone,
        cpu_overcommit=data.cpu_overcommit,
        memory_overcommit=data.memory_overcommit,
        tenant=data.tenant,
        labels=data.labels,
    )


@delete("/pools/{pool:str}", status_code=204)
async def remove_pool(control: Control, caller: Caller, pool: FromPath[str]) -> None:
    """Remove a pool without hosts."""
    await control.pools.remove(caller, pool)


router = Router(
    path="/v1",
    tags=["hosts"],
    route_handlers=[
        *(list_hosts, show_host, cordon_host, uncordon_host, drain_host, label_host, remove_host),
        *(list_zones, add_zone, remove_zone, list_pools, set_pool, remove_pool),
    ],
)
