"""Apps: plan, release, look at, stop, start, remove."""

from litestar import Response, Router, delete, get, post
from litestar.params import FromPath, FromQuery, JSONBody
from litestar.response import Stream

from skep.api.answers import follow as follow_run
from skep.api.asking import Caller, Control
from skep.api.bodies import named
from skep.api.log_merge import app_log, follow_app_log
from skep.api.streams import NDJSON, answers, event_stream, json_lines
from skep.model.spec import AppSpec
from skep.model.views.apps import AppDetail, AppView, LogView
from skep.model.views.base import Accepted
from skep.model.views.plans import PlanDetail


@get("/")
async def list_apps(control: Control, caller: Caller) -> list[AppView]:
    """The apps of the tenant."""
    return await control.apps.list(caller)


@get("/{app:str}")
async def show_app(control: Control, caller: Caller, app: FromPath[str]) -> AppDetail:
    """The app with its current specification and its replicas."""
    return await control.apps.show(caller, app)


@post("/{app:str}/plan", status_code=200)
async def plan_app(
    control: Control, caller: Caller, app: FromPath[str], data: JSONBody[AppSpec]
) -> PlanDetail:
    """What releasing this specification would change.  Nothing is done."""
    return await control.apps.plan(caller, named(data, app))


@delete("/{app:str}", status_code=202)
async def remove_app(
    control: Control, caller: Caller, app: FromPath[str], volumes: FromQuery[bool] = False
) -> Response[Accepted]:
    """Remove the app and its replicas; its data disks stay unless `volumes` is given."""
    return follow_run(await control.apps.remove(caller, app, volumes=volumes))


@post("/{app:str}/stop", status_code=202)
async def stop_app(
    control: Control, caller: Caller, app: FromPath[str], service: FromQuery[str | None] = None
) -> Response[Accepted]:
    """Stop the app, or one service of it.  Its addresses, disks and ports stay."""
    return follow_run(await control.apps.stop(caller, app, service))


@post("/{app:str}/start", status_code=202)
async def start_app(
    control: Control, caller: Caller, app: FromPath[str], service: FromQuery[str | None] = None
) -> Response[Accepted]:
    """Start what was stopped."""
    return follow_run(await control.apps.start(caller, app, service))


@post("/{app:str}/restart", status_code=202)
async def restart_app(
    control: Control, caller: Caller, app: FromPath[str], service: FromQuery[str | None] = None
) -> Response[Accepted]:
    """Stop and start the app, or one service of it."""
    return follow_run(await control.apps.restart(caller, app, service))


@get("/{app:str}/logs", responses=answers(LogView, NDJSON))
async def app_logs(
    control: Control,
    caller: Caller,
    app: FromPath[str],
    service: FromQuery[str | None] = None,
    follow: FromQuery[bool] = False,
    tail: FromQuery[int | None] = None,
    since: FromQuery[str | None] = None,
) -> Stream:
    """What the replicas of the app wrote, as lines of JSON (LogView) ordered by time.

    With `follow` it goes on as server-sent events, taking up replicas that come later.
    `tail` is the number of lines of each replica, `since` a time in RFC 3339.
    """
    await control.apps.show(caller, app)
    if follow:
        return event_stream(follow_app_log(control, caller, app, service, tail=tail, since=since))
    return json_lines(app_log(control, caller, app, service, tail=tail, since=since))


router = Router(
    path="/v1/apps",
    tags=["apps"],
    route_handlers=[
        list_apps,
        show_app,
        plan_app,
        remove_app,
        stop_app,
        start_app,
        restart_app,
        app_logs,
    ],
)
