"""Replicas: look at, read their logs, run a command in one, see what they use."""

from typing import Any

from litestar import Request, Router, get
from litestar.params import FromPath, FromQuery
from litestar.response import Stream

from skep.api.asking import Caller, Control
from skep.api.exec_socket import exec_in_replica
from skep.api.log_merge import replica_log
from skep.api.streams import EVENT_STREAM, NDJSON, answers, event_stream, json_lines
from skep.model.views.apps import LogView, ReplicaView, UsageView


@get("/replicas")
async def list_replicas(
    control: Control, caller: Caller, app: FromQuery[str | None] = None
) -> list[ReplicaView]:
    """The replicas of the tenant, or of one app."""
    return await control.replicas.list(caller, app)


@get("/apps/{app:str}/replicas/{replica:str}")
async def show_replica(
    control: Control, caller: Caller, app: FromPath[str], replica: FromPath[str]
) -> ReplicaView:
    """One replica by its name in the app: `web-0`, or `web` for the first one of the service."""
    return await control.replicas.show(caller, app, replica)


@get("/apps/{app:str}/replicas/{replica:str}/logs", responses=answers(LogView, NDJSON))
async def replica_logs(
    request: Request[Any, Any, Any],
    control: Control,
    caller: Caller,
    app: FromPath[str],
    replica: FromPath[str],
    follow: FromQuery[bool] = False,
    tail: FromQuery[int | None] = None,
    since: FromQuery[str | None] = None,
) -> Stream:
    """What the replica wrote, as lines of JSON (LogView), oldest first.

    With `follow`, or when the client accepts `text/event-stream`, as server-sent events.
    `tail` is a number of lines, `since` a time in RFC 3339.
    """
    shown = await control.replicas.show(caller, app, replica)
    lines = replica_log(control, caller, app, shown.name, follow=follow, tail=tail, since=since)
    if follow or EVENT_STREAM in request.headers.get("Accept", ""):
        return event_stream(lines)
    return json_lines(lines)


@get("/usage")
async def list_usage(control: Control, caller: Caller, app: FromQuery[str | None] = None) -> list[UsageView]:
    """What the running replicas use now."""
    return await control.replicas.usage(caller, app)


router = Router(
    path="/v1",
    tags=["replicas"],
    route_handlers=[list_replicas, show_replica, replica_logs, exec_in_replica, list_usage],
)
