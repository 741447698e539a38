"""Networks of several tenants: the part of `skep net` that shares them."""

from typing import Annotated

from cyclopts import Parameter

from skep.cli.common import DEFAULT, Common
from skep.cli.failures import Exit, Failure
from skep.cli.output import age, say, show
from skep.model.views.networks import ShareView


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


def leave(network: str, /, *, common: Common = DEFAULT) -> None:
    """Leave a network of another tenant, or decline it; the replicas must have left.

    Example: `skep net leave shop/backbone`

    Parameters
    ----------
    network
        By its alias, or as OWNER/NETWORK.
    """
    common.connect().act("POST", "/v1/networks/leave", network=network)
