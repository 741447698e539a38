"""`skep net`."""

from ipaddress import ip_address, ip_network
from typing import Annotated

from cyclopts import App, Parameter

from skep.cli.common import DEFAULT, Common
from skep.cli.egress import egress_app
from skep.cli.failures import Exit, Failure
from skep.cli.follow import finish
from skep.cli.network_maps import ports, show_map, show_network, trace
from skep.cli.network_shares import accept, leave, share, shares, unshare
from skep.cli.output import age, say, show
from skep.cli.security_groups import group_app, rule_app
from skep.model.spec import AppSubnet
from skep.model.views.base import Accepted
from skep.model.views.networks import (
    NetworkView,
    ReservationView,
)

app = App(
    name="net",
    help="Networks: create, list, show, ports, map, trace, reserve, share, egress, remove; security groups.",
)
app.command(egress_app)
app.command(group_app)
app.command(rule_app)


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


app.command(show_network, name="show")
app.command(ports)
app.command(show_map, name="map")
app.command(trace)
app.command(shares)
app.command(share)
app.command(unshare)
app.command(accept)
app.command(leave)
