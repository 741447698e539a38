"""`skep net`."""

from typing import Annotated

from cyclopts import App, Parameter

from skep.cli.common import DEFAULT, Common
from skep.cli.failures import Exit, Failure
from skep.cli.follow import finish
from skep.cli.names import complete_replica
from skep.cli.output import age, document, show
from skep.model.views import Accepted, NetworkView, PlaceView, PortView, TraceView

app = App(name="net", help="Networks: list, ports, map, trace, remove.")

Replica = Annotated[str, Parameter(completer=complete_replica)]


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


@app.command(name="map")
def show_map(network: str | None = None, /, *, common: Common = DEFAULT) -> None:
    """Show which hosts the networks reach over, and what is where.

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
        ("ADDRESS", lambda one: one.address),
        ("UP", lambda one: one.up),
    ]
    show(common.connect().get("/v1/networks/map", list[PlaceView], network=network), columns, common.output)


@app.command
def trace(source: Replica, target: Replica, /, *, common: Common = DEFAULT) -> None:
    """Say why a replica can or cannot reach another, hop by hop.

    Example: `skep net trace shop/web-0 shop/db-0`

    Parameters
    ----------
    source
        Who asks, as APP/REPLICA.
    target
        Who is asked, as APP/REPLICA.
    """
    found = common.connect().get("/v1/networks/trace", TraceView, source=source, target=target)
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
