"""What networks look like: the part of `skep net` that shows who is where, and who reaches whom."""

from typing import Annotated, Literal

from cyclopts import Parameter

from skep.cli.common import DEFAULT, Common
from skep.cli.failures import Exit, Failure
from skep.cli.names import complete_replica
from skep.cli.output import Column, age, document, show, show_one
from skep.model.views.networks import (
    AddressView,
    EgressView,
    NetworkDetail,
    PlaceView,
    PortView,
    ReservationView,
    ShareView,
    SubnetView,
    TraceView,
)

Replica = Annotated[str, Parameter(completer=complete_replica)]


def show_network(network: str, /, *, common: Common = DEFAULT) -> None:
    """Show who is on a network, and what is left, reserved and shared of it.

    Example: `skep net show backbone`

    Parameters
    ----------
    network
        Its name; that of another tenant as OWNER/NETWORK, or by its alias.
    """
    found = common.connect().get("/v1/networks/details", NetworkDetail, network=network)
    show_one(found, _FIELDS, common.output)
    if common.output == "table" and found.ports:
        print()
        show(found.ports, _ADDRESSES, common.output)


def ports(network: str | None = None, /, *, common: Common = DEFAULT) -> None:
    """List who has which address.

    Example: `skep net ports default`

    Parameters
    ----------
    network
        Only of this network.
    """
    columns = [
        ("ADDRESS", _addresses),
        ("MAC", lambda one: one.mac),
        ("NETWORK", lambda one: one.network),
        ("REPLICA", lambda one: one.replica),
    ]
    show(common.connect().get("/v1/ports", list[PortView], network=network), columns, common.output)


def show_map(network: str | None = None, /, *, common: Common = DEFAULT) -> None:
    """Show which hosts the networks reach over, what is where, and where the addresses of services lead.

    Example: `skep net map default`

    Parameters
    ----------
    network
        Only this network.
    """
    columns = [
        ("NETWORK", lambda one: one.network),
        ("HOST", lambda one: one.host),
        ("STATE", lambda one: one.host_state),
        ("REPLICA", lambda one: one.replica),
        ("ADDRESS", _addresses),
        ("UP", lambda one: one.up),
        ("EGRESS", lambda one: one.egress),
        ("LEADS TO", lambda one: one.leads_to),
    ]
    show(common.connect().get("/v1/networks/map", list[PlaceView], network=network), columns, common.output)


def trace(
    source: Replica,
    target: Replica,
    /,
    *,
    port: int | None = None,
    protocol: Literal["tcp", "udp", "icmp"] = "tcp",
    common: Common = DEFAULT,
) -> None:
    """Say why a replica can or cannot reach another, a service, or the outside, hop by hop.

    Examples: `skep net trace shop/web-0 shop/db-0`; `skep net trace shop/web-0 shop/db --port 5432`;
    `skep net trace shop/web-0 192.0.2.9`

    Parameters
    ----------
    source
        Who asks, as APP/REPLICA.
    target
        Who is asked, as APP/REPLICA or APP/SERVICE, or an address outside.
    port
        The port that is asked for: security groups may admit one and refuse another.
    protocol
        tcp, udp or icmp.
    """
    about = {"port": port, "protocol": protocol}
    found = common.connect().get("/v1/networks/trace", TraceView, source=source, target=target, **about)
    if common.output != "table":
        document(found, common.output)
    else:
        columns = [
            ("AT", lambda one: one.at),
            ("PASSES", lambda one: one.passes),
            ("WHAT", lambda one: one.what),
        ]
        show(found.hops, columns, common.output)
    if not found.reachable:
        raise Failure(f"{found.source} does not reach {found.target}.", Exit.FAILED)


def _addresses(one: AddressView | PortView | PlaceView) -> str:
    return f"{one.address}, {one.address6}" if one.address6 else one.address


def _subnet(one: SubnetView) -> str:
    """With how full it is, where that is ours to know."""
    full = "" if one.free is None else f" ({one.used} used, {one.reserved} reserved, {one.free} free)"
    return f"{one.subnet} via {one.gateway}{full}"


def _egress(one: EgressView | None) -> str:
    """By which address it leaves, and which host leads there."""
    if one is None:
        return ""
    return f"{one.address}, by {one.host}" if one.host else f"{one.address}, by no host now"


def _reserved(one: ReservationView) -> str:
    return f"{one.addresses} for {one.purpose}" if one.purpose else one.addresses


def _shared(one: ShareView) -> str:
    return one.tenant if one.accepted else f"{one.tenant} (not accepted yet)"


_FIELDS: list[Column[NetworkDetail]] = [
    ("name", lambda one: one.name),
    ("owner", lambda one: one.owner),
    ("subnet", lambda one: [_subnet(subnet) for subnet in one.subnets]),
    ("internal", lambda one: one.internal),
    ("used", lambda one: one.used),
    ("reserved", lambda one: one.reserved),
    ("free", lambda one: one.free),
    ("reservations", lambda one: [_reserved(kept) for kept in one.reservations]),
    ("egress", lambda one: _egress(one.egress)),
    ("shared with", lambda one: [_shared(share) for share in one.shares]),
    ("created", lambda one: age(one.created)),
]
_ADDRESSES: list[Column[AddressView]] = [
    ("ADDRESS", _addresses),
    ("NAMES", lambda one: one.names),
    ("TENANT", lambda one: one.tenant),
    ("REPLICA", lambda one: one.replica),
    ("HOST", lambda one: one.host),
]
