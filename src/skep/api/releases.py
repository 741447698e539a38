"""Releases of an app: make one, list them, show one, compare two, go back, scale."""

from litestar import Response, Router, get, post
from litestar.params import FromPath, FromQuery, JSONBody

from skep.api.answers import follow as follow_run
from skep.api.asking import Caller, Control
from skep.api.bodies import Scale, named
from skep.model.errors import NotFound
from skep.model.spec import AppSpec
from skep.model.views.base import Accepted
from skep.model.views.releases import ReleaseDetail, ReleaseDiff, ReleaseView


@post("/{app:str}/releases", status_code=202)
async def create_release(
    control: Control,
    caller: Caller,
    app: FromPath[str],
    data: JSONBody[AppSpec],
    force_recreate: FromQuery[bool] = False,
    note: FromQuery[str] = "",
    mark: FromQuery[str] = "",
) -> Response[Accepted]:
    """Release a new revision of the app; it is made when it does not exist.

    Answers at once with the run that carries it out; follow `/v1/runs/{run}` to its end.
    With `force_recreate` every replica is made anew, changed or not.  `note`: why, for the list of releases.
    `mark`: of a plan that was shown; if this would do anything else by now, it is refused.
    """
    made = control.apps.apply(caller, named(data, app), force_recreate=force_recreate, note=note, mark=mark)
    return follow_run(await made)


@get("/{app:str}/releases")
async def list_releases(control: Control, caller: Caller, app: FromPath[str]) -> list[ReleaseView]:
    """The revisions of the app, newest first."""
    return await control.releases.list(caller, app)


@get("/{app:str}/releases/{revision:str}")
async def show_release(
    control: Control, caller: Caller, app: FromPath[str], revision: FromPath[str]
) -> ReleaseDetail:
    """One revision: what it is made of, and how it differs from the one that was in force before."""
    if not (revision.isascii() and revision.isdecimal()):
        raise NotFound(f"App {app!r} has no revision {revision[:40]!r}: revisions are numbers.")
    return await control.releases.show(caller, app, int(revision[:9]))


@get("/{app:str}/diff")
async def compare_releases(
    control: Control,
    caller: Caller,
    app: FromPath[str],
    before: FromQuery[int],
    after: FromQuery[int | None] = None,
) -> ReleaseDiff:
    """How two revisions differ, value by value; `after` is the current one by default."""
    return await control.releases.diff(caller, app, before, after)


@post("/{app:str}/rollback", status_code=202)
async def roll_back(
    control: Control,
    caller: Caller,
    app: FromPath[str],
    revision: FromQuery[int | None] = None,
    with_data: FromQuery[bool] = False,
) -> Response[Accepted]:
    """Release anew what the app was in an older revision, by default in the one in force before this one.

    `with_data`: its data disks hold again what they held when that revision was left.
    """
    return follow_run(await control.releases.rollback(caller, app, revision, with_data=with_data))


@post("/{app:str}/scale", status_code=202)
async def scale_app(
    control: Control, caller: Caller, app: FromPath[str], data: JSONBody[Scale]
) -> Response[Accepted]:
    """Release anew what the app is, with other numbers of replicas and nothing else."""
    return follow_run(await control.scaling.scale(caller, app, data.replicas))


router = Router(
    path="/v1/apps",
    tags=["releases"],
    route_handlers=[create_release, list_releases, show_release, compare_releases, roll_back, scale_app],
)
