"""`skep net`."""

from cyclopts import App

from skep.cli.common import DEFAULT, Common
from skep.cli.follow import finish
from skep.cli.output import age, show
from skep.model.views import Accepted, NetworkView, PortView

app = App(name="net", help="Networks: list, ports, remove.")


@app.command(name="ls")
def list_networks(*, common: Common = DEFAULT) -> None:
    """List the networks of the tenant.

    Example: `skep net ls`
    """
    columns = [
        ("NAME", lambda one: one.name),
        ("SUBNET", lambda one: one.subnet),
        ("GATEWAY", lambda one: one.gateway),
        ("INTERNAL", lambda one: one.internal),
        ("PORTS", lambda one: one.ports),
        ("CREATED", lambda one: age(one.created)),
    ]
    show(common.connect().get("/v1/networks", list[NetworkView]), columns, common.output)


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
        ("ADDRESS", lambda one: one.address),
        ("MAC", lambda one: one.mac),
        ("NETWORK", lambda one: one.network),
        ("REPLICA", lambda one: one.replica),
    ]
    show(common.connect().get("/v1/ports", list[PortView], network=network), columns, common.output)


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
