"""`skep net`."""

from ipaddress import ip_address, ip_network
from typing import Annotated, Literal

from cyclopts import App, Parameter

from skep.cli.common import DEFAULT, Common
from skep.cli.egress import egress_app
from skep.cli.failures import Exit, Failure
from skep.cli.follow import finish
from skep.cli.names import complete_replica
from skep.cli.output import Column, age, document, say, show, show_one
from skep.cli.security_groups import group_app, rule_app
from skep.model.spec import AppSubnet
from skep.model.views.base import Accepted
from skep.model.views.networks import (
    AddressView,
    EgressView,
    NetworkDetail,
    NetworkView,
    PlaceView,
    PortView,
    ReservationView,
    ShareView,
    SubnetView,
    TraceView,
)

app = App(
    name="net",
    help="Networks: create, list, show, ports, map, trace, reserve, share, egress, remove; security groups.",
)
app.command(egress_app)
app.command(group_app)
app.command(rule_app)

Replica = Annotated[str, Parameter(completer=complete_replica)]


@app.command(name="ls")
def list_networks(*, common: Common = DEFAULT) -> None:
    """List the networks of the tenant, and those that others share with it.

    Example: `skep net ls`
    """
    columns = [
        ("NAME", lambda one: one.name),
        ("OWNER", lambda one: one.owner),
        ("SUBNET", lambda one: one.subnets or one.subnet),
        ("GATEWAY", lambda one: one.gateway),
        ("INTERNAL", lambda one: one.internal),
        ("PORTS", lambda one: one.ports),
        ("CREATED", lambda one: age(one.created)),
    ]
    show(common.connect().get("/v1/networks", list[NetworkView]), columns, common.output)


@app.command
def create(
    network: str,
    /,
    *,
    subnet: list[str] | None = None,
    gateway: list[str] | None = None,
    internal: bool = False,
    ipv6: bool = False,
    common: Common = DEFAULT,
) -> None:
    """Make a network that belongs to no app; apps join it as an external one.

    Examples: `skep net create backbone --subnet 10.1.0.0/24`;
    `skep net create wide --subnet 10.1.0.0/24 --subnet 10.2.0.0/24`

    Parameters
    ----------
    network
        Its name.
    subnet
        Its addresses, as CIDR; without it a range is chosen.  Several are used one after the other.
    gateway
        The way out of the subnet that it is in, by default the first address.
    internal
        Without a way out.
    ipv6
        With IPv6 beside; without an IPv6 subnet one is chosen.
    """
    known = _with_gateways(subnet or [], gateway or [])
    first = next((one for one in known if ":" not in one.subnet), None)
    body = {
        "name": network,
        "subnet": first.subnet if first else None,
        "gateway": first.gateway if first else None,
        "internal": internal,
        "subnets": [one for one in known if one is not first],
        "enable_ipv6": ipv6,
    }
    made = common.connect().post("/v1/networks", NetworkView, body)
    say(f"Network {made.name} has {', '.join(made.subnets)}.")


def _with_gateways(subnets: list[str], gateways: list[str]) -> list[AppSubnet]:
    """Each subnet with the gateway that lies in it."""
    found = [
        AppSubnet(subnet=one, gateway=next((g for g in gateways if _in(g, one)), None)) for one in subnets
    ]
    if lost := sorted(set(gateways) - {one.gateway for one in found}):
        raise Failure(f"Gateway {lost[0]} is in none of the subnets.", Exit.INVALID)
    return found


def _in(address: str, subnet: str) -> bool:
    try:
        return ip_address(address) in ip_network(subnet)
    except ValueError:
        return False


subnet_app = App(name="subnet", help="Subnets of a network: add.")
app.command(subnet_app)


@subnet_app.command
def add(network: str, subnet: str, /, *, gateway: str | None = None, common: Common = DEFAULT) -> None:
    """Let a network grow by a subnet; nothing that runs is touched.

    Example: `skep net subnet add backbone 10.2.0.0/24`

    Parameters
    ----------
    network
        Its name.
    subnet
        More addresses, as CIDR: used when the subnets before are full.
    gateway
        The way out for who lives there, by default the first address.
    """
    client = common.connect()
    body = {"subnet": subnet, "gateway": gateway}
    finish(client, client.post(f"/v1/networks/{network}/subnets", Accepted, body))


@app.command(name="show")
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


def _addresses(one: AddressView | PortView | PlaceView) -> str:
    return f"{one.address}, {one.address6}" if one.address6 else one.address


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


@app.command
def reserve(
    network: str,
    addresses: str,
    /,
    *,
    purpose: Annotated[str, Parameter(name="--for")] = "",
    common: Common = DEFAULT,
) -> None:
    """Keep addresses for replicas that ask for them by `ipv4_address`.

    Example: `skep net reserve backbone 10.1.0.10-10.1.0.19 --for printers`

    Parameters
    ----------
    network
        Name of the network.
    addresses
        One, a range FIRST-LAST, or a block as CIDR.
    purpose
        What they are for.
    """
    body = {"addresses": addresses, "purpose": purpose}
    made = common.connect().post(f"/v1/networks/{network}/reservations", ReservationView, body)
    say(f"{made.addresses} is reserved.")


@app.command
def unreserve(network: str, addresses: str, /, *, common: Common = DEFAULT) -> None:
    """Give a reservation up.

    Example: `skep net unreserve backbone 10.1.0.10-10.1.0.19`

    Parameters
    ----------
    network
        Name of the network.
    addresses
        As they were reserved.
    """
    common.connect().act("DELETE", f"/v1/networks/{network}/reservations", addresses=addresses)


@app.command
def shares(*, common: Common = DEFAULT) -> None:
    """List what the tenant shares, what is shared with it, and what is offered to it.

    Example: `skep net shares`
    """
    columns = [
        ("NETWORK", lambda one: one.network),
        ("OWNER", lambda one: one.owner),
        ("WITH", lambda one: one.tenant),
        ("ACCEPTED", lambda one: one.accepted),
        ("CREATED", lambda one: age(one.created)),
    ]
    show(common.connect().get("/v1/networks/shares", list[ShareView]), columns, common.output)


@app.command
def share(
    network: str,
    /,
    *,
    tenant: Annotated[str, Parameter(name="--with")],
    common: Common = DEFAULT,
) -> None:
    """Let another tenant's apps plug into a network, once that tenant accepts.

    Example: `skep net share backbone --with acme`

    Parameters
    ----------
    network
        Name of the network.
    tenant
        Who may plug in.
    """
    common.connect().post(f"/v1/networks/{network}/shares", ShareView, {"tenant": tenant})
    say(f"{tenant} may accept it now, with 'skep net accept'.")


@app.command
def unshare(
    network: str,
    /,
    *,
    tenant: Annotated[str, Parameter(name="--with")],
    common: Common = DEFAULT,
) -> None:
    """Share a network with a tenant no longer; its replicas must have left.

    Example: `skep net unshare backbone --with acme`

    Parameters
    ----------
    network
        Name of the network.
    tenant
        With whom.
    """
    common.connect().act("DELETE", f"/v1/networks/{network}/shares/{tenant}")


@app.command
def accept(network: str, /, *, alias: str | None = None, common: Common = DEFAULT) -> None:
    """Accept a network that another tenant offers; apps then join it as an external one.

    Example: `skep net accept shop/backbone --alias backbone`

    Parameters
    ----------
    network
        As OWNER/NETWORK.
    alias
        What apps call it; by default OWNER/NETWORK.
    """
    owner, slash, name = network.partition("/")
    if not slash:
        raise Failure(f"{network!r} is not OWNER/NETWORK.", Exit.INVALID, "See 'skep net shares'.")
    body = {"owner": owner, "network": name, "alias": alias}
    made = common.connect().post("/v1/networks/accept", ShareView, body)
    say(f"Apps join it as the external network {made.network}.")


@app.command
def leave(network: str, /, *, common: Common = DEFAULT) -> None:
    """Leave a network of another tenant, or decline it; the replicas must have left.

    Example: `skep net leave shop/backbone`

    Parameters
    ----------
    network
        By its alias, or as OWNER/NETWORK.
    """
    common.connect().act("POST", "/v1/networks/leave", network=network)


@app.command
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


@app.command(name="map")
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


@app.command
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


@app.command
def rm(network: str, /, *, common: Common = DEFAULT) -> None:
    """Remove a network that nothing uses any more.

    Example: `skep net rm shop_back`

    Parameters
    ----------
    network
        Name of the network.
    """
    client = common.connect()
    finish(client, client.delete(f"/v1/networks/{network}", Accepted))
