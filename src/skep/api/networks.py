"""Networks and the ports in them."""

from litestar import Response, Router, delete, get
from litestar.params import FromPath, FromQuery

from skep.api.answers import follow
from skep.api.asking import Caller, Control
from skep.model.views import Accepted, NetworkView, PortView


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


@delete("/networks/{network:str}", status_code=202)
async def remove_network(control: Control, caller: Caller, network: FromPath[str]) -> Response[Accepted]:
    """Remove a network that nothing uses any more."""
    return follow(await control.networks.remove(caller, network))


router = Router(path="/v1", tags=["networks"], route_handlers=[list_networks, list_ports, remove_network])
