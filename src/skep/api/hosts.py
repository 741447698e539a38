"""Hosts and zones; for admins."""

from litestar import Router, get

from skep.api.asking import Caller, Control
from skep.model.views import HostView, ZoneView


@get("/hosts")
async def list_hosts(control: Control, caller: Caller) -> list[HostView]:
    """The hosts with what they have and what is used."""
    return await control.hosts.list(caller)


@get("/zones")
async def list_zones(control: Control, caller: Caller) -> list[ZoneView]:
    """The zones and how many hosts each has."""
    return await control.hosts.zones(caller)


router = Router(path="/v1", tags=["hosts"], route_handlers=[list_hosts, list_zones])
