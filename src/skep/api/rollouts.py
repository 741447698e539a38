"""The last release of an app, as it comes into force: look, pause, resume, abort."""

from litestar import Response, Router, get, post
from litestar.params import FromPath

from skep.api.answers import follow as follow_run
from skep.api.asking import Caller, Control
from skep.model.views.base import Accepted
from skep.model.views.rollouts import AppStatus, RolloutView


@get("/rollout")
async def show_rollout(control: Control, caller: Caller, app: FromPath[str]) -> RolloutView:
    """How far the last release is and what it waits for, or how it ended and why."""
    return await control.rollouts.show(caller, app)


@post("/rollout/pause", status_code=202)
async def pause_rollout(control: Control, caller: Caller, app: FromPath[str]) -> Response[Accepted]:
    """Begin no further step of it."""
    return follow_run(await control.rollouts.pause(caller, app))


@post("/rollout/resume", status_code=202)
async def resume_rollout(control: Control, caller: Caller, app: FromPath[str]) -> Response[Accepted]:
    """Go on after a pause, or in spite of the failures that it asks about."""
    return follow_run(await control.rollouts.resume(caller, app))


@post("/rollout/abort", status_code=202)
async def abort_rollout(control: Control, caller: Caller, app: FromPath[str]) -> Response[Accepted]:
    """Go back to the release before."""
    return follow_run(await control.rollouts.abort(caller, app))


@get("/status")
async def show_status(control: Control, caller: Caller, app: FromPath[str]) -> AppStatus:
    """How the app is: its last release on its way, and what is not as its current release says."""
    return await control.status.show(caller, app)


router = Router(
    path="/v1/apps/{app:str}",
    tags=["releases"],
    route_handlers=[show_status, show_rollout, pause_rollout, resume_rollout, abort_rollout],
)
