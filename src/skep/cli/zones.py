"""`skep zone`."""

from cyclopts import App

from skep.cli.common import DEFAULT, Common
from skep.cli.output import say, show
from skep.model.views.hosts import ZoneView

zone_app = App(name="zone", help="Zones: list, add, remove.")


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


@zone_app.command(name="add")
def add_zone(zone: str, /, *, region: str, common: Common = DEFAULT) -> None:
    """Make a zone, with a pool of the same name. For admins.

    Example: `skep zone add zone-2 --region region-1`

    Parameters
    ----------
    zone
        Name of the zone.
    region
        Region it is in; made if need be.
    """
    common.connect().post("/v1/zones", ZoneView, {"name": zone, "region": region})
    say(f"Zone {zone} is there.")


@zone_app.command(name="rm")
def remove_zone(zone: str, /, *, common: Common = DEFAULT) -> None:
    """Remove a zone without hosts, and its pools. For admins.

    Example: `skep zone rm zone-2`

    Parameters
    ----------
    zone
        Name of the zone.
    """
    common.connect().act("DELETE", f"/v1/zones/{zone}")
    say(f"Removed {zone}.")
