"""`skep app move`: an app goes to another zone as a whole, and back."""

from typing import Annotated

from cyclopts import App, Parameter

from skep.cli.apps import AppArgument
from skep.cli.client import Client
from skep.cli.common import DEFAULT, Common
from skep.cli.failures import Exit, Failure
from skep.cli.follow import finish
from skep.cli.output import confirm as ask
from skep.cli.output import document, say, size
from skep.model.views.apps import AppDetail
from skep.model.views.base import Accepted
from skep.model.views.moves import MovedDisk, MoveOrder, MovePlan

app = App(name="app", help="An app as a whole: move.")
Flag = Parameter(negative=())


@app.command(name="move")
def move(
    name: AppArgument,
    /,
    *,
    to_zone: str = "",
    back: Annotated[bool, Flag] = False,
    keep_new_data: Annotated[bool, Flag] = False,
    drop_new_data: Annotated[bool, Flag] = False,
    confirm: Annotated[bool, Flag] = False,
    plan: Annotated[bool, Flag] = False,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative=())] = False,
    wait: bool = True,
    common: Common = DEFAULT,
) -> None:
    """Move an app with its images, configs, secrets and disks to another zone: to a cluster, or out of one.

    Disks are copied while it runs; then it stops, they are copied once more and compared, and it starts over
    there. If anything fails until then, it runs again where it was. Its disks stay where they were until you
    --confirm, or go --back.

    Examples: `skep app move shop --to-zone k8s --plan`; `skep app move shop --to-zone k8s`;
    `skep app move shop --confirm`; `skep app move shop --back --keep-new-data`

    Parameters
    ----------
    name
        Name of the app.
    to_zone
        The zone where it is to be.
    back
        Go back to where it left its disks.
    keep_new_data
        On the way back, take along what was written since it moved.
    drop_new_data
        On the way back, have the disks again as they were left; the newer ones are left in their turn.
    confirm
        Remove the disks that it left: it stays where it is.
    plan
        Show what would happen, and do nothing.
    yes
        Do not ask.
    wait
        Follow the work to its end.
    """
    client = common.connect()
    if confirm:
        _must_stand_alone(to_zone, back, keep_new_data, drop_new_data, plan)
        ask(f"Remove the disks that {name} left when it moved?", yes)
        finish(client, client.post(f"/v1/apps/{name}/move/confirm", Accepted), wait=wait)
        return
    order = _order(to_zone, back, keep_new_data, drop_new_data)
    if plan or not yes:
        found = client.post(f"/v1/apps/{name}/move/plan", MovePlan, order)
        if plan and common.output != "table":
            document(found, common.output)
            return
        _print(found, to_people=not plan)
        if plan:
            return
        ask(f"Move {name}?", yes)
    _begin(client, name, order, wait)


def _begin(client: Client, name: str, order: MoveOrder, wait: bool) -> None:
    accepted = client.post(f"/v1/apps/{name}/move", Accepted, order)
    if not finish(client, accepted, wait=wait):
        return
    left = client.get(f"/v1/apps/{name}", AppDetail).app.left_in
    say(f"{name} has moved.")
    if left:
        say(
            f"Its disks are still in {', '.join(left)}, too, as they were left: skep app move {name} "
            "--confirm, or --back (with --keep-new-data or --drop-new-data)"
        )


def _must_stand_alone(*others: object) -> None:
    if any(others):
        raise Failure("--confirm ends a move, and goes with no other option of it.", Exit.INVALID)


def _order(to_zone: str, back: bool, keep: bool, drop: bool) -> MoveOrder:
    if keep and drop:
        raise Failure("New data is kept or dropped, not both.", Exit.INVALID)
    return MoveOrder(to_zone=to_zone, back=back, data="keep" if keep else "drop" if drop else "")


def _print(found: MovePlan, *, to_people: bool) -> None:
    """`to_people`: a question follows; it and what it is about go where messages go."""
    lines = [
        f"{found.app}: {', '.join(found.source)} -> {', '.join(found.target)}, as revision {found.revision}"
    ]
    lines += [f"  image of {one.service}: {one.image} ({size(one.size)})" for one in found.images]
    lines += [f"  disk {_disk(one)}" for one in found.disks]
    lines += [f"  replica {one.replica}: {one.source} -> {one.target}" for one in found.replicas]
    lines.append(f"  stops: {found.stop}" if found.stop else "  stops: never; the new side is ready first")
    lines += [f"  note: {one}" for one in found.warnings]
    for line in lines:
        (say if to_people else print)(line)


def _disk(one: MovedDisk) -> str:
    used = "" if one.used is None else f"{size(one.used)} of "
    how = "" if one.copied else ", which is there as it was left"
    return f"{one.name}: {used}{size(one.size)}, {one.source} -> {one.target}{how}"
