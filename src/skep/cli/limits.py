"""`skep limit`."""

from typing import Annotated

from cyclopts import App, Parameter

from skep.cli.common import DEFAULT, Common
from skep.cli.names import complete_limit
from skep.cli.output import age, document, say, show
from skep.cli.values import rate_of, rate_text
from skep.model.views.limits import LimitView

app = App(name="limit", help="Limits of flows, steps, hosts, tenants and any other key.")

Key = Annotated[str, Parameter(completer=complete_limit)]


@app.command(name="ls")
def list_limits(*, common: Common = DEFAULT) -> None:
    """List the limits that are set; members see those of their tenant.

    Example: `skep limit ls`
    """
    columns = [
        ("KEY", lambda one: one.key),
        ("AT ONCE", lambda one: one.concurrency),
        ("RATE", lambda one: rate_text(one.rate)),
        ("BURST", lambda one: None if one.burst is None else f"{one.burst:g}"),
        ("WEIGHT", lambda one: None if one.weight is None else f"{one.weight:g}"),
        ("BY", lambda one: one.by),
        ("CHANGED", lambda one: age(one.changed)),
    ]
    show(common.connect().get("/v1/limits", list[LimitView]), columns, common.output)


@app.command(name="set")
def set_limit(
    key: Key,
    /,
    *,
    concurrency: int | None = None,
    rate: str | None = None,
    burst: float | None = None,
    weight: float | None = None,
    common: Common = DEFAULT,
) -> None:
    """Put a limit in force at once, in place of what was set for the key. For admins.

    Keys are paths: what counts on tenant/acme/builds also counts on tenant/acme; `*` stands for any one name.
    Steps count by themselves on tenant/NAME, flow/NAME, step/NAME and host/ROUTE.

    Examples: `skep limit set step/image.pull --concurrency 4`; `skep limit set tenant/* --rate 50/s`

    Parameters
    ----------
    key
        What is limited.
    concurrency
        So many at once; 0 lets nobody pass.
    rate
        So many begin: 10/s, 5/m or 100/h.
    burst
        So many may begin at once after a pause.
    weight
        Of a tenant: its share of time in proportion to the others'.
    """
    body = {
        "key": key,
        "concurrency": concurrency,
        "rate": rate_of(rate),
        "burst": burst,
        "weight": weight,
    }
    made = common.connect().put("/v1/limits", LimitView, body)
    if common.output != "table":
        document(made, common.output)
    say(f"The limit of {key} is in force.")


@app.command
def rm(key: Key, /, *, common: Common = DEFAULT) -> None:
    """Remove the limit of a key; less exact ones, and the flows' own, count again.

    Example: `skep limit rm step/image.pull`

    Parameters
    ----------
    key
        What was limited.
    """
    common.connect().act("DELETE", "/v1/limits", key=key)
    say(f"No limit is set for {key}.")
