"""Moving an app as a whole to another zone, and back."""

from litestar import Response, Router, post
from litestar.params import FromPath, JSONBody

from skep.api.answers import follow as follow_run
from skep.api.asking import Caller, Control
from skep.model.views.base import Accepted
from skep.model.views.moves import MoveOrder, MovePlan


@post("/plan", status_code=200)
async def plan_move(
    control: Control, caller: Caller, app: FromPath[str], data: JSONBody[MoveOrder]
) -> MovePlan:
    """What moving the app would do: what is carried, and where to; when nobody serves.  Nothing is done."""
    return await control.moving.plan(caller, app, data)


@post("/", status_code=202)
async def move_app(
    control: Control, caller: Caller, app: FromPath[str], data: JSONBody[MoveOrder]
) -> Response[Accepted]:
    """Move the app with all it has: `to_zone`, or `back` to where it left its disks.

    On the way back `data` says whether what was written since goes along (`keep`), or the app has its disks
    again as it left them (`drop`).  What its disks held stays where it was until that is confirmed.
    """
    return follow_run(await control.moving.start(caller, app, data))


@post("/confirm", status_code=202)
async def confirm_move(control: Control, caller: Caller, app: FromPath[str]) -> Response[Accepted]:
    """Remove the disks that the app left when it moved.  There is no way back after this."""
    return follow_run(await control.moving.confirm(caller, app))


router = Router(
    path="/v1/apps/{app:str}/move", tags=["apps"], route_handlers=[plan_move, move_app, confirm_move]
)
