"""`skep disk`."""

from typing import Annotated

from cyclopts import App, Parameter

from skep.cli.common import DEFAULT, Common
from skep.cli.follow import finish
from skep.cli.output import age, confirm, parse_size, show, size
from skep.model.views.base import Accepted
from skep.model.views.disks import DiskView

app = App(name="disk", help="Disks: list, resize, remove.")


@app.command(name="ls")
def list_disks(*, common: Common = DEFAULT) -> None:
    """List the disks of the tenant.

    Example: `skep disk ls`
    """
    columns = [
        ("NAME", lambda one: one.name),
        ("KIND", lambda one: one.kind),
        ("SIZE", lambda one: size(one.size)),
        ("USED", lambda one: size(one.used)),
        ("APP", lambda one: one.app),
        ("ATTACHED TO", lambda one: one.attached_to or one.side),
        ("CREATED", lambda one: age(one.created)),
    ]
    show(common.connect().get("/v1/disks", list[DiskView]), columns, common.output)


@app.command
def resize(disk: str, new_size: str, /, *, common: Common = DEFAULT) -> None:
    """Grow a disk while it is in use, or shrink it to what its data allows; in a cluster disks only grow.

    Example: `skep disk resize shop_data 20g`

    Parameters
    ----------
    disk
        Name of the disk.
    new_size
        For example 512m or 20g.
    """
    client = common.connect()
    body = {"size": parse_size(new_size)}
    finish(client, client.post(f"/v1/disks/{disk}/resize", Accepted, body))


@app.command
def rm(
    disk: str,
    /,
    *,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative=())] = False,
    common: Common = DEFAULT,
) -> None:
    """Delete a disk with everything on it.

    Example: `skep disk rm shop_data --yes`

    Parameters
    ----------
    disk
        Name of the disk.
    yes
        Do not ask.
    """
    confirm(f"Delete disk {disk} with everything on it?", yes)
    client = common.connect()
    finish(client, client.delete(f"/v1/disks/{disk}", Accepted))
