"""`skep releases`, `skep diff` and `skep rollback`."""

from typing import Annotated

from cyclopts import App, Parameter

from skep.cli.apps import AppArgument
from skep.cli.common import DEFAULT, Common
from skep.cli.differences import print_differences
from skep.cli.follow import finish
from skep.cli.output import age, confirm, document, say, show, show_one
from skep.model.views.base import Accepted
from skep.model.views.releases import ReleaseDetail, ReleaseDiff, ReleaseView

app = App(name="releases", help="Revisions of an app: list, show.")


@app.default
def releases(name: AppArgument, /, *, common: Common = DEFAULT) -> None:
    """List the revisions of an app, newest first.

    Example: `skep releases shop`

    Parameters
    ----------
    name
        Name of the app.
    """
    columns = [
        ("REVISION", lambda one: one.revision),
        ("STATE", lambda one: one.state),
        ("BY", lambda one: one.created_by),
        ("CREATED", lambda one: age(one.created)),
        ("CHANGED", lambda one: one.changed),
        ("NOTE", lambda one: one.note),
    ]
    show(common.connect().get(f"/v1/apps/{name}/releases", list[ReleaseView]), columns, common.output)


@app.command(name="show")
def show_release(name: AppArgument, revision: int, /, *, common: Common = DEFAULT) -> None:
    """Show one revision: who made it, why, and how it differs from the one before.

    With -o json or yaml also everything it is made of; configs and secrets by the hash of their content.

    Example: `skep releases show shop 3`

    Parameters
    ----------
    name
        Name of the app.
    revision
        Its number, as `skep releases` shows it.
    """
    detail = common.connect().get(f"/v1/apps/{name}/releases/{revision}", ReleaseDetail)
    fields = [
        ("App", lambda one: one.release.app),
        ("Revision", lambda one: one.release.revision),
        ("State", lambda one: one.release.state),
        ("By", lambda one: one.release.created_by),
        ("Created", lambda one: age(one.release.created) + " ago"),
        ("Note", lambda one: one.release.note),
        ("Images", lambda one: [f"{name}@{digest}" for name, digest in one.release.images.items()]),
    ]
    show_one(detail, fields, common.output)
    if common.output == "table" and detail.differences:
        print()
        print_differences(detail.differences)


def diff(name: AppArgument, before: int, after: int | None = None, /, *, common: Common = DEFAULT) -> None:
    """Show how two revisions of an app differ, value by value.

    Images are compared by digest, configs and secrets by the hash of their content, which is never shown.

    Examples: `skep diff shop 3`; `skep diff shop 3 5 -o json`

    Parameters
    ----------
    name
        Name of the app.
    before
        The revision to start from.
    after
        The revision to come to; by default the current one.
    """
    found = common.connect().get(f"/v1/apps/{name}/diff", ReleaseDiff, before=before, after=after)
    if common.output != "table":
        document(found, common.output)
    elif found.differences:
        print_differences(found.differences)
    else:
        say(f"Revisions {found.before} and {found.after} of {name} are made of the same.")


def rollback(
    name: AppArgument,
    to: int | None = None,
    /,
    *,
    with_data: Annotated[bool, Parameter(negative=())] = False,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative=())] = False,
    wait: bool = True,
    common: Common = DEFAULT,
) -> None:
    """Go back to what an app was in an older revision: images, environment, configs, secrets, scale, ports.

    That is a release of its own, so going back can be taken back. Data on disks stays as it is, unless
    --with-data brings it back too.

    Examples: `skep rollback shop`; `skep rollback shop 3 --with-data`

    Parameters
    ----------
    name
        Name of the app.
    to
        The revision; by default the one that was in force before the current one.
    with_data
        Let data disks hold again what they held when that revision was left; what was written since is lost.
    yes
        Do not ask.
    wait
        Follow the work to its end.
    """
    if with_data:
        confirm(f"Lose what {name} wrote to its data disks since that revision was left?", yes)
    client = common.connect()
    accepted = client.post(f"/v1/apps/{name}/rollback", Accepted, revision=to, with_data=with_data or None)
    finish(client, accepted, wait=wait)
