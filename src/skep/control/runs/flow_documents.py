"""Flows and the steps they are made of: looked at, checked, drawn; started by operators."""

import asyncio
import inspect
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from skep.control.callers import Caller
from skep.control.runs.flow_faults import translated
from skep.flow import Flow, FlowEngine, FlowError, Priority, Registry
from skep.flow.definition import picture
from skep.flow.definition.catalogue import Code
from skep.flow.definition.hints import describe
from skep.model.errors import InvalidInput, NotFound
from skep.model.views.base import Accepted
from skep.model.views.flows import CheckView, CodeView, DrawnView, FlowDetail, FlowView, ProblemView

Format = Literal["svg", "mermaid", "text"]
MOST_DOCUMENTS = 500


class Flows:
    """What the engine knows now: the program's flows and steps, and those of the active bundles."""

    def __init__(self, engine: FlowEngine) -> None:
        self._engine = engine
        self._checking = asyncio.Lock()

    async def show(self, caller: Caller, flow: str) -> FlowDetail:
        found = self._find(flow)
        return FlowDetail(flow=_view(found), text=picture.describe(found.plan))

    async def draw(self, caller: Caller, flow: str, format: Format) -> DrawnView:  # noqa: A002
        return await asyncio.to_thread(_draw, self._find(flow), format)

    async def steps(self, caller: Caller) -> list[CodeView]:
        """Everything that `use` may name, by name."""
        return [_code(code) for _, code in sorted(self._engine.registry.steps.items())]

    async def check(self, caller: Caller, documents: Mapping[str, str]) -> CheckView:
        """Whether these documents, by file name, fit together, and fit the steps and flows there are.

        They may refer to each other, and take the place of flows of the same name.
        """
        _must_be_few(documents)
        try:
            flows = await self._parse(documents)
        except FlowError as error:
            return CheckView(flows=(), problems=tuple(map(_problem, error.problems)))
        return CheckView(flows=tuple(flow.name for flow in flows), problems=())

    async def preview(self, caller: Caller, documents: Mapping[str, str], format: Format) -> list[DrawnView]:  # noqa: A002
        """Pictures of documents that nobody has kept.  Raises InvalidInput: they have faults."""
        _must_be_few(documents)
        with translated():
            flows = await self._parse(documents)
        return [await asyncio.to_thread(_draw, flow, format) for flow in flows]

    async def start(
        self,
        caller: Caller,
        flow: str,
        values: Mapping[str, object],
        *,
        key: str | None = None,
        priority: str | None = None,
        deadline: datetime | None = None,
        title: str = "",
    ) -> Accepted:
        """Begin a run in the caller's tenant; the same key again answers the run it began first.

        Raises:
            NotFound: there is no such flow.
            InvalidInput: the input does not fit it.
        """
        caller.must_operate()
        self._find(flow)
        if deadline is not None and (deadline.tzinfo is None or deadline < datetime.now(UTC)):
            raise InvalidInput("The deadline must be a time to come, with its zone: 2030-01-02T03:04:05Z.")
        with translated():
            run = await self._engine.start(
                flow,
                values,
                tenant=caller.tenant,
                title=title,
                labels={"started-by": caller.user_name},
                key=None if key is None else f"by-hand/{key}",
                priority=priority_named(priority),
                deadline=deadline,
            )
        return Accepted(run=run)

    async def list(self, caller: Caller) -> list[FlowView]:
        registry = self._engine.registry
        return [_view(registry.flow(name)) for name in registry.flows()]

    def _find(self, name: str) -> Flow:
        try:
            return self._engine.registry.flow(name)
        except LookupError as error:
            raise NotFound(f"There is no flow {name!r}; see 'skep flow ls'.") from error

    async def _parse(self, documents: Mapping[str, str]) -> Sequence[Flow]:
        """One check at a time, off the event loop: a large document takes seconds."""
        async with self._checking:
            beside = Registry(self._engine.registry)
            return await asyncio.to_thread(beside.add_documents, dict(documents))


def priority_named(name: str | None) -> Priority | None:
    """Raises InvalidInput: there is none of that name."""
    if name is None:
        return None
    try:
        return Priority[name.upper()]
    except KeyError as error:
        known = ", ".join(one.name.lower() for one in Priority)
        raise InvalidInput(f"There is no priority {name!r}; there are {known}.") from error


def _must_be_few(documents: Mapping[str, str]) -> None:
    if not documents or len(documents) > MOST_DOCUMENTS:
        raise InvalidInput(f"Send 1 to {MOST_DOCUMENTS} flow documents, by file name.")


def _draw(flow: Flow, format: Format) -> DrawnView:  # noqa: A002
    try:
        match format:
            case "svg":
                content = picture.svg(flow.plan)
            case "mermaid":
                content = picture.mermaid(flow.plan)
            case "text":
                content = picture.describe(flow.plan)
    except ValueError as error:
        raise InvalidInput(f"{error}; ask for text instead.") from error
    return DrawnView(flow=flow.name, format=format, content=content)


def _problem(found: Any) -> ProblemView:
    where = found.position
    return ProblemView(file=where.file, line=where.line, step=found.step, reason=found.reason)


def _view(flow: Flow) -> FlowView:
    plan = flow.plan
    return FlowView(name=flow.name, steps=flow.size, input=dict(plan.input), bundle=plan.bundle)


def _code(code: Code) -> CodeView:
    step = code.step
    return CodeView(
        name=code.name,
        kind=code.kind,
        parameters={name: describe(hint) for name, hint in code.parameters.items()},
        required=tuple(sorted(code.required)),
        returns=describe(code.returns),
        undo=step.undo_do is not None,
        retry=step.retry,
        timeout=step.timeout,
        heartbeat=step.heartbeat,
        description=inspect.getdoc(step.do) or "",
        bundle=code.bundle,
    )
