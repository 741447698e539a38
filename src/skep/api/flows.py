"""Flows: what skep can do, as documents that wire steps."""

from typing import Any, Literal

from litestar import Response, Router, get, post
from litestar.params import FromPath, FromQuery, JSONBody

from skep.api.answers import follow
from skep.api.asking import Caller, Control
from skep.api.bodies import CheckFlows, DrawFlows, StartFlow
from skep.api.drawing import drawn
from skep.model.views.base import Accepted
from skep.model.views.flows import CheckView, CodeView, DrawnView, FlowDetail, FlowView


@get("/flows")
async def list_flows(control: Control, caller: Caller) -> list[FlowView]:
    """The flows of the program and of the active bundles, by name."""
    return await control.flows.list(caller)


@get("/steps")
async def list_steps(control: Control, caller: Caller) -> list[CodeView]:
    """The steps that flows may use, with their signatures and what they promise."""
    return await control.flows.steps(caller)


@post("/flows/check", status_code=200)
async def check_flows(control: Control, caller: Caller, data: JSONBody[CheckFlows]) -> CheckView:
    """Whether documents fit together, and fit the steps and flows there are; nothing is kept."""
    return await control.flows.check(caller, data.documents)


@post("/flows/draw", status_code=200)
async def draw_flows(control: Control, caller: Caller, data: JSONBody[DrawFlows]) -> list[DrawnView]:
    """Pictures of documents; nothing is kept."""
    return await control.flows.preview(caller, data.documents, data.format)


@get("/flows/{flow:str}")
async def show_flow(control: Control, caller: Caller, flow: FromPath[str]) -> FlowDetail:
    """One flow: what it takes, its steps in order, what it gives."""
    return await control.flows.show(caller, flow)


@get("/flows/{flow:str}/graph")
async def flow_graph(
    control: Control,
    caller: Caller,
    flow: FromPath[str],
    format: FromQuery[Literal["svg", "mermaid", "text"]] = "svg",  # noqa: A002
) -> Response[Any]:
    """Its picture."""
    return drawn(await control.flows.draw(caller, flow, format))


@post("/flows/{flow:str}/runs", status_code=202)
async def start_flow(
    control: Control, caller: Caller, flow: FromPath[str], data: JSONBody[StartFlow]
) -> Response[Accepted]:
    """Begin a run; for admins.  The same `key` again answers the run it began first."""
    return follow(
        await control.flows.start(
            caller,
            flow,
            data.input,
            key=data.key,
            priority=data.priority,
            deadline=data.deadline,
            title=data.title,
        )
    )


router = Router(
    path="/v1",
    tags=["flows"],
    route_handlers=[list_flows, list_steps, check_flows, draw_flows, show_flow, flow_graph, start_flow],
)
