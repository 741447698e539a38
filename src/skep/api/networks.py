"""Networks and the ports in them."""

from litestar import Response, Router, delete, get, post, put
from litestar.params import FromPath, FromQuery, JSONBody

from skep.api.answers import follow
from skep.api.asking import Caller, Control
from skep.api.bodies import AcceptNetwork, AssignEgress, NewEgressAddresses, NewNetwork, OfferNetwork, Reserve
from skep.model.spec import AppSubnet
from skep.model.views.base import Accepted
from skep.model.views.networks import (
    EgressView,
    NetworkDetail,
    NetworkView,
    PlaceView,
    PortView,
    ReservationView,
    ShareView,
    TraceView,
)


@get("/networks")
async def list_networks(control: Control, caller: Caller) -> list[NetworkView]:
    """The networks that the tenant may plug into: its own, and those that others share with it."""
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
    control: Control,
    caller: Caller,
    source: FromQuery[str],
    target: FromQuery[str],
    port: FromQuery[int | None] = None,
    protocol: FromQuery[str] = "tcp",
) -> TraceView:
    """Why a replica can or cannot reach another, hop by hop.  Replicas are named `app/name`.

    With a `port` security groups are asked about it; else about anything that they admit at all.
    """
    return await control.networks.trace(caller, source, target, port=port, protocol=protocol)


@get("/networks/details")
async def show_network(control: Control, caller: Caller, network: FromQuery[str]) -> NetworkDetail:
    """One network: who is on it, and for its owner what is left, reserved and shared."""
    return await control.networks.show(caller, network)


@post("/networks", status_code=201)
async def create_network(control: Control, caller: Caller, data: JSONBody[NewNetwork]) -> NetworkView:
    """Make a network that belongs to no app; apps join it as an external one."""
    return await control.networks.create(
        caller,
        data.name,
        subnet=data.subnet,
        gateway=data.gateway,
        internal=data.internal,
        more=data.subnets,
        enable_ipv6=data.enable_ipv6,
    )


@post("/networks/{network:str}/subnets", status_code=202)
async def add_subnet(
    control: Control, caller: Caller, network: FromPath[str], data: JSONBody[AppSubnet]
) -> Response[Accepted]:
    """Let a network that is in use grow by a subnet; nothing that runs is touched."""
    return follow(await control.networks.add_subnet(caller, network, data))


@delete("/networks/{network:str}", status_code=202)
async def remove_network(control: Control, caller: Caller, network: FromPath[str]) -> Response[Accepted]:
    """Remove a network that nothing uses any more."""
    return follow(await control.networks.remove(caller, network))


@post("/networks/{network:str}/reservations", status_code=201)
async def reserve(
    control: Control, caller: Caller, network: FromPath[str], data: JSONBody[Reserve]
) -> ReservationView:
    """Keep addresses for replicas that ask for them."""
    return await control.reservations.add(caller, network, data.addresses, data.purpose)


@delete("/networks/{network:str}/reservations", status_code=204)
async def unreserve(
    control: Control, caller: Caller, network: FromPath[str], addresses: FromQuery[str]
) -> None:
    """Give a reservation up; `addresses` as it was made."""
    await control.reservations.remove(caller, network, addresses)


@get("/networks/shares")
async def list_shares(control: Control, caller: Caller) -> list[ShareView]:
    """What the tenant shares, what is shared with it, and what is offered to it."""
    return await control.shares.list(caller)


@post("/networks/{network:str}/shares", status_code=201)
async def share_network(
    control: Control, caller: Caller, network: FromPath[str], data: JSONBody[OfferNetwork]
) -> ShareView:
    """Let another tenant plug in, once it accepts."""
    return await control.shares.offer(caller, network, data.tenant)


@delete("/networks/{network:str}/shares/{tenant:str}", status_code=204)
async def unshare_network(
    control: Control, caller: Caller, network: FromPath[str], tenant: FromPath[str]
) -> None:
    """End it, as the owner; the other tenant's replicas must be gone."""
    await control.shares.withdraw(caller, network, tenant)


@post("/networks/accept", status_code=200)
async def accept_network(control: Control, caller: Caller, data: JSONBody[AcceptNetwork]) -> ShareView:
    """Agree to what another tenant offers."""
    return await control.shares.accept(caller, data.owner, data.network, data.alias)


@post("/networks/leave", status_code=204)
async def leave_network(control: Control, caller: Caller, network: FromQuery[str]) -> None:
    """End it, or decline it, as the other tenant; the caller's replicas must be gone."""
    await control.shares.leave(caller, network)


@get("/egress-addresses")
async def list_egress(control: Control, caller: Caller) -> list[EgressView]:
    """The egress addresses that the tenant has or may have; operators see all."""
    return await control.egress.list(caller)


@post("/egress-addresses", status_code=201)
async def add_egress(
    control: Control, caller: Caller, data: JSONBody[NewEgressAddresses]
) -> list[EgressView]:
    """Give a zone addresses that networks may leave by.  For operators."""
    return await control.egress.add(caller, data.zone, data.addresses, data.tenant)


@delete("/egress-addresses/{address:str}", status_code=204)
async def remove_egress(control: Control, caller: Caller, address: FromPath[str]) -> None:
    """Take one away that no network has.  For operators."""
    await control.egress.remove(caller, address)


@put("/networks/{network:str}/egress")
async def assign_egress(
    control: Control, caller: Caller, network: FromPath[str], data: JSONBody[AssignEgress]
) -> EgressView:
    """Let a network leave by a fixed address, whatever hosts its replicas are on."""
    return await control.egress.assign(caller, network, data.address)


@delete("/networks/{network:str}/egress", status_code=204)
async def unassign_egress(control: Control, caller: Caller, network: FromPath[str]) -> None:
    """Let it leave by the addresses of its hosts again."""
    await control.egress.unassign(caller, network)


router = Router(
    path="/v1",
    tags=["networks"],
    route_handlers=[
        list_networks,
        create_network,
        add_subnet,
        list_ports,
        show_map,
        trace,
        show_network,
        remove_network,
        reserve,
        unreserve,
        list_shares,
        share_network,
        unshare_network,
        accept_network,
        leave_network,
        list_egress,
        add_egress,
        remove_egress,
        assign_egress,
        unassign_egress,
    ],
)
