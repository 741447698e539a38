"""`skep host` and `skep zone`."""

from cyclopts import App

from skep.cli.common import DEFAULT, Common
from skep.cli.output import show, size
from skep.model.views import HostView, ZoneView

host_app = App(name="host", help="Hosts: list.")
zone_app = App(name="zone", help="Zones: list.")


@host_app.command(name="ls")
def list_hosts(*, common: Common = DEFAULT) -> None:
    """List the hosts with what they have. For admins.

    Example: `skep host ls`
    """
    columns = [
        ("NAME", lambda one: one.name),
        ("ZONE", lambda one: one.zone),
        ("STATE", lambda one: one.state),
        ("CPUS", lambda one: one.cpus),
        ("MEMORY", lambda one: size(one.memory)),
        ("REPLICAS", lambda one: one.replicas),
        ("POOL", lambda one: f"{size(one.pool_used)} of {size(one.pool_total)}"),
        ("KERNEL", lambda one: one.kernel),
        ("CGROUPS", lambda one: one.cgroups),
    ]
    show(common.connect().get("/v1/hosts", list[HostView]), columns, common.output)


@zone_app.command(name="ls")
def list_zones(*, common: Common = DEFAULT) -> None:
    """List the zones. For admins.

    Example: `skep zone ls`
    """
    columns = [
        ("NAME", lambda one: one.name),
        ("REGION", lambda one: one.region),
        ("HOSTS", lambda one: one.hosts),
    ]
    show(common.connect().get("/v1/zones", list[ZoneView]), columns, common.output)
