"""Runs: what skep is doing or has done, step by step, and how to steer it."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, Literal

from litestar import Request, Response, Router, get, post
from litestar.params import FromPath, FromQuery, HeaderParameter, JSONBody, QueryParameter
from litestar.response import Stream

from skep.api.answers import follow
from skep.api.asking import Caller, Control
from skep.api.bodies import ActOnRuns, Approve, ResolveStep, SendSignal
from skep.api.drawing import SVG, drawn
from skep.api.streams import EVENT_STREAM, answers, event_stream
from skep.control.runs.run_selection import Selection
from skep.model.views.base import Accepted
from skep.model.views.runs import (
    ActedView,
    CriticalPathView,
    RunDetail,
    RunEventView,
    RunGraph,
    RunView,
    WaitView,
)
from skep.streams.pump import close


@get("/")
async def list_runs(
    control: Control,
    caller: Caller,
    app: FromQuery[str | None] = None,
    flow: FromQuery[str | None] = None,
    states: Annotated[str | None, QueryParameter(name="state")] = None,
    schedule: FromQuery[str | None] = None,
    failed_step: FromQuery[str | None] = None,
    created_after: FromQuery[datetime | None] = None,
    created_before: FromQuery[datetime | None] = None,
    active: FromQuery[bool] = False,
    all_tenants: FromQuery[bool] = False,
    archived: FromQuery[bool] = False,
    before: FromQuery[str | None] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 50,
) -> list[RunView]:
    """The runs of the tenant, newest first; `active` leaves out those that have ended.

    `state` may be several, joined by commas; `before` is the last id of the page before; `archived` answers
    those that ended long ago instead; `all_tenants` is for admins.
    """
    selection = Selection(
        app=app,
        flow=flow,
        states=tuple(filter(None, (states or "").split(","))),
        schedule=schedule,
        failed_step=failed_step,
        created_after=created_after,
        created_before=created_before,
        active=active,
        tenants=all_tenants,
    )
    return await control.runs.list(caller, selection, limit=limit, before=before, archived=archived)


@post("/actions", status_code=200)
async def act_on_runs(control: Control, caller: Caller, data: JSONBody[ActOnRuns]) -> list[ActedView]:
    """Pause, resume, cancel, retry or rerun many; what cannot be done is said of each, and passed over."""
    return await control.runs.act(caller, data.action, runs=data.runs, selection=data.selection, dry=data.dry)


@get("/{run:str}")
async def show_run(
    control: Control, caller: Caller, run: FromPath[str], fold: FromQuery[bool] = False
) -> RunDetail:
    """One run with its steps; with `fold` the items of fan-outs are counted instead of listed."""
    return await control.runs.show(caller, run, fold=fold)


@get("/{run:str}/events", responses=answers(RunEventView, EVENT_STREAM))
async def run_events(
    control: Control,
    caller: Caller,
    run: FromPath[str],
    last_event_id: Annotated[int, HeaderParameter(name="Last-Event-ID")] = 0,
) -> Stream:
    """The history of the run as server-sent events, then live until the run has ended (event `end`).

    The id of an event is its sequence; a client that reconnects with Last-Event-ID misses nothing.
    """
    await control.runs.glance(caller, run)
    events = after(control.runs.follow(caller, run), last_event_id)
    return event_stream(events, event=lambda item: item.kind, identity=lambda item: item.sequence)


@get("/{run:str}/why")
async def why_run(control: Control, caller: Caller, run: FromPath[str]) -> list[WaitView]:
    """What the run, and each step that has not ended, waits for; nothing if it has ended."""
    return await control.runs.why(caller, run)


@get("/{run:str}/graph")
async def run_graph(
    request: Request[Any, Any, Any],
    control: Control,
    caller: Caller,
    run: FromPath[str],
    format: FromQuery[Literal["json", "svg", "mermaid"]] = "json",  # noqa: A002
) -> Response[RunGraph | str]:
    """The steps with states and times as JSON, or as a picture: `format`, or `Accept: image/svg+xml`."""
    if format == "json" and SVG in request.headers.get("Accept", ""):
        format = "svg"  # noqa: A001
    if format == "json":
        return Response(await control.runs.graph(caller, run))
    return drawn(await control.runs.draw(caller, run, format))


@get("/{run:str}/critical-path")
async def run_critical_path(control: Control, caller: Caller, run: FromPath[str]) -> CriticalPathView:
    """Which steps decided how long a run took that has ended, and by how much others could have been late."""
    return await control.runs.critical(caller, run)


@post("/{run:str}/pause", status_code=204)
async def pause_run(control: Control, caller: Caller, run: FromPath[str]) -> None:
    """Start no further step until it is resumed; those under way end."""
    await control.runs.pause(caller, run)


@post("/{run:str}/resume", status_code=204)
async def resume_run(control: Control, caller: Caller, run: FromPath[str]) -> None:
    """Go on with a run that was paused."""
    await control.runs.resume(caller, run)


@post("/{run:str}/cancel", status_code=204)
async def cancel_run(control: Control, caller: Caller, run: FromPath[str]) -> None:
    """Stop the run and undo what it did."""
    await control.runs.cancel(caller, run)


@post("/{run:str}/retry", status_code=204)
async def retry_run(control: Control, caller: Caller, run: FromPath[str]) -> None:
    """Go on with a run that has failed: what succeeded and was kept stays; for admins."""
    await control.runs.retry(caller, run)


@post("/{run:str}/rerun", status_code=202)
async def rerun_run(control: Control, caller: Caller, run: FromPath[str]) -> Response[Accepted]:
    """Begin a new run with the same input; for admins."""
    return follow(await control.runs.rerun(caller, run))


@post("/{run:str}/steps/{step:str}/resolve", status_code=204)
async def resolve_step(
    control: Control, caller: Caller, run: FromPath[str], step: FromPath[str], data: JSONBody[ResolveStep]
) -> None:
    """Decide about a step of a run that needs its operator; `-` is the run as a whole."""
    await control.runs.resolve(caller, run, "" if step == "-" else step, data.choice)


@post("/{run:str}/steps/{step:str}/approve", status_code=204)
async def approve_step(
    control: Control, caller: Caller, run: FromPath[str], step: FromPath[str], data: JSONBody[Approve]
) -> None:
    """Answer the approval that the step waits for."""
    await control.runs.approve(caller, run, step, approved=data.approved, comment=data.comment)


@post("/{run:str}/signals", status_code=204)
async def send_signal(
    control: Control, caller: Caller, run: FromPath[str], data: JSONBody[SendSignal]
) -> None:
    """Tell the run something; a step that waits for a signal of that name takes it, now or later."""
    await control.runs.signal(caller, run, data.name, data.value, key=data.key)


async def after(events: AsyncIterator[RunEventView], sequence: int) -> AsyncIterator[RunEventView]:
    """Leave out what the client has seen."""
    try:
        async for event in events:
            if event.sequence > sequence:
                yield event
    finally:
        await close(events)


router = Router(
    path="/v1/runs",
    tags=["runs"],
    route_handlers=[
        list_runs,
        act_on_runs,
        show_run,
        run_events,
        why_run,
        run_graph,
        run_critical_path,
        pause_run,
        resume_run,
        cancel_run,
        retry_run,
        rerun_run,
        resolve_step,
        approve_step,
        send_signal,
    ],
)
