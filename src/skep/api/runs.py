"""Runs: what skep is doing or has done, step by step."""

from collections.abc import AsyncIterator
from typing import Annotated

from litestar import Router, get, post
from litestar.params import FromPath, FromQuery, HeaderParameter, JSONBody, QueryParameter
from litestar.response import Stream

from skep.api.asking import Caller, Control
from skep.api.bodies import ResolveStep
from skep.api.streams import EVENT_STREAM, answers, close, event_stream
from skep.model.views import RunDetail, RunEventView, RunView


@get("/")
async def list_runs(
    control: Control,
    caller: Caller,
    app: FromQuery[str | None] = None,
    active: FromQuery[bool] = False,
    limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 50,
) -> list[RunView]:
    """The runs of the tenant, newest first; `active` leaves out those that have ended."""
    return await control.runs.list(caller, app=app, active=active, limit=limit)


@get("/{run:str}")
async def show_run(control: Control, caller: Caller, run: FromPath[str]) -> RunDetail:
    """One run with all its steps."""
    return await control.runs.show(caller, run)


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
    await control.runs.show(caller, run)
    events = after(control.runs.follow(caller, run), last_event_id)
    return event_stream(events, event=lambda item: item.kind, identity=lambda item: item.sequence)


@post("/{run:str}/cancel", status_code=204)
async def cancel_run(control: Control, caller: Caller, run: FromPath[str]) -> None:
    """Stop the run and undo what it did."""
    await control.runs.cancel(caller, run)


@post("/{run:str}/steps/{step:str}/resolve", status_code=204)
async def resolve_step(
    control: Control, caller: Caller, run: FromPath[str], step: FromPath[str], data: JSONBody[ResolveStep]
) -> None:
    """Decide about a step of a run that needs its operator."""
    await control.runs.resolve(caller, run, step, data.choice)


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
    route_handlers=[list_runs, show_run, run_events, cancel_run, resolve_step],
)
