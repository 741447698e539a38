"""Networks and the ports in them."""

from litestar import Response, Router, delete, get
from litestar.params import FromPath, FromQuery

from skep.api.answers import follow
from skep.api.asking import Caller, Control
from skep.model.views import Accepted, NetworkView, PlaceView, PortView, TraceView


@get("/networks")
async def list_networks(control: Control, caller: Caller) -> list[NetworkView]:
    """The networks of the tenant."""
    return await control.networks.list(caller)


@get("/ports")
async def list_ports(
    control: Control, caller: Caller, network: FromQuery[str | None] = None
) -> list[PortView]:
    """The ports of the tenant, or of one network: who has which address."""
    return await control.networks.ports(caller, network)


@get("/networks/map")
async def show_map(
    control: Control, caller: Caller, network: FromQuery[str | None] = None
) -> list[PlaceView]:
    """Which hosts the networks of the tenant reach over, and what is where."""
    return await control.networks.map(caller, network)


@get("/networks/trace")
async def trace(
    control: Control, caller: Caller, source: FromQuery[str], target: FromQuery[str]
) -> TraceView:
    """Why a replica can or cannot reach another, hop by hop.  Replicas are named `app/name`."""
    return await control.networks.trace(caller, source, target)


@delete("/networks/{network:str}", status_code=202)
async def remove_network(control: Control, caller: Caller, network: FromPath[str]) -> Response[Accepted]:
    """Remove a network that nothing uses any more."""
    return follow(await control.networks.remove(caller, network))


router = Router(
    path="/v1", tags=["networks"], route_handlers=[list_networks, list_ports, show_map, trace, remove_network]
)
