"""`skep box`: pull the cables of a box's hosts, and their plugs, while the box is up."""

from collections.abc import Sequence

from skep.configuration import Configuration
from skep.main.box import Box
from skep.main.layout import Layout, Member, stored_layout
from skep.model.errors import Conflict, InvalidInput
from skep.providers.box.underlay import Underlay


async def run(settings: Configuration, words: Sequence[str] = ()) -> None:
    """`ls`, or one of the others with a host.

    Raises:
        InvalidInput: it is none of them.
        Conflict: there is no box, or it is down.
        NotFound: it has no such host.
    """
    plan = stored_layout(settings)
    if plan is None:
        raise Conflict(f"The installation in {settings.data} is no box; make one: skep up --hosts 3")
    async with Underlay(settings.instance, settings.box_underlay) as underlay:
        box = Box(settings, plan, underlay)
        match list(words):
            case ["ls"]:
                show(box, plan)
            case ["cut" | "mend" | "kill" | "start" as verb, host]:
                await _control(box, verb, plan.member(host))
            case _:
                raise InvalidInput("Say ls, or cut, mend, kill or start with a host.")


async def _control(box: Box, verb: str, member: Member) -> None:
    if not box.underlay.namespace(member.host).exists():
        raise Conflict("The box is down: skep up brings it back.")
    match verb:
        case "cut":
            await box.underlay.cut(member.number)
        case "mend":
            await box.underlay.mend(member.number)
        case "kill":
            await box.cut_power(member)
        case _ if box.was_removed(member.host):
            raise Conflict(f"Host {member.host!r} was removed from the installation.")
        case _:
            await box.underlay.mend(member.number)
            box.start(member)


def show(box: Box, plan: Layout) -> None:
    """Print every host as the machine knows it, not as control does."""
    row = "{:<10} {:<10} {:<16} {:<8} {}".format
    print(row("HOST", "ZONE", "ADDRESS", "CABLE", "AGENT"))
    for one in plan.members():
        cable = "in" if box.underlay.is_connected(one.number) else "cut"
        pid = box.pid(one.host)
        print(row(one.host, one.zone, str(box.underlay.address(one.number)), cable, pid or "-"))
