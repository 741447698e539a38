"""`skep net egress`."""

from typing import Annotated

from cyclopts import App, Parameter

from skep.cli.common import DEFAULT, Common
from skep.cli.output import age, say, show
from skep.model.views.networks import EgressView

egress_app = App(
    name="egress",
    help="Addresses by which networks leave to the outside: list, add, remove, assign, unassign.",
)

_URL = "/v1/egress-addresses"


@egress_app.command(name="ls")
def list_addresses(*, common: Common = DEFAULT) -> None:
    """List the egress addresses that the tenant has or may have; an admin sees all.

    Example: `skep net egress ls`
    """
    columns = [
        ("ADDRESS", lambda one: one.address),
        ("ZONE", lambda one: one.zone),
        ("TENANT", lambda one: one.tenant),
        ("NETWORK", lambda one: one.network),
        ("HOST", lambda one: one.host),
        ("CREATED", lambda one: age(one.created)),
    ]
    show(common.connect().get(_URL, list[EgressView]), columns, common.output)


@egress_app.command
def add(
    zone: str,
    addresses: str,
    /,
    *,
    tenant: Annotated[str | None, Parameter(name="--for")] = None,
    common: Common = DEFAULT,
) -> None:
    """Give a zone addresses that its hosts can have.  For admins.

    Examples: `skep net egress add zone-1 203.0.113.10-203.0.113.19`;
    `skep net egress add zone-1 203.0.113.20 --for acme`

    Parameters
    ----------
    zone
        Whose hosts can have them: they must be routed there.
    addresses
        One, a range FIRST-LAST, or a block as CIDR.
    tenant
        Whose networks may leave by them; without it anybody's.
    """
    made = common.connect().post(
        _URL, list[EgressView], {"zone": zone, "addresses": addresses, "tenant": tenant}
    )
    say(f"{len(made)} egress address{'es' if len(made) != 1 else ''} for zone {zone}.")


@egress_app.command
def rm(address: str, /, *, common: Common = DEFAULT) -> None:
    """Take an address away that no network has.  For admins.

    Example: `skep net egress rm 203.0.113.10`

    Parameters
    ----------
    address
        As `skep net egress ls` lists it.
    """
    common.connect().act("DELETE", f"{_URL}/{address}")


@egress_app.command
def assign(network: str, address: str | None = None, /, *, common: Common = DEFAULT) -> None:
    """Let a network leave to the outside by one address, whatever hosts its replicas are on.

    Connections to the outside from before end.

    Examples: `skep net egress assign backbone`; `skep net egress assign backbone 203.0.113.10`

    Parameters
    ----------
    network
        Name of the network.
    address
        One of `skep net egress ls`; without it, any that is free.
    """
    url = f"/v1/networks/{network}/egress"
    made = common.connect().put(url, EgressView, {"address": address})
    if made.host:
        say(f"Network {network} leaves by {made.address}, on {made.host}.")
    else:
        say(f"Network {network} leaves by {made.address} as soon as a host of zone {made.zone} answers.")


@egress_app.command
def unassign(network: str, /, *, common: Common = DEFAULT) -> None:
    """Let a network leave by the addresses of its hosts again.

    Example: `skep net egress unassign backbone`

    Parameters
    ----------
    network
        Name of the network.
    """
    common.connect().act("DELETE", f"/v1/networks/{network}/egress")
