"""A durable flow engine; has never heard of clouds.

Flows are data (YAML that wires steps), steps are code (typed async functions).  Joining it:

    registry = Registry()
    registry.add_module(my_steps)
    registry.add_flows("my.flows")
    database = await Database.open("sqlite+aiosqlite:///flows.db")
    async with FlowEngine(database, registry, lambda route: environment) as engine:
        run = await engine.start("replica.create", {"replica": "web-0"})
        await engine.wait(run)
"""

from skep.flow.definition.plan import Flow
from skep.flow.definition.registry import Registry
from skep.flow.engine import FlowEngine
from skep.flow.errors import (
    CommitFailed,
    Fenced,
    FlowError,
    FlowFault,
    InputError,
    PlaceGone,
    Problem,
    StepError,
    UnknownFlow,
    UnknownRun,
    WrongState,
)
from skep.flow.execution.operator import Choice
from skep.flow.runs import (
    Priority,
    Reason,
    RunEvent,
    RunFilter,
    RunRecord,
    RunState,
    StepRecord,
    StepState,
    StepWait,
)
from skep.flow.steps import Context, Kind, Retry, RunId, Step, step
from skep.flow.storage import tables
from skep.flow.storage.database import Database

__all__ = [
    "Choice",
    "CommitFailed",
    "Context",
    "Database",
    "Fenced",
    "Flow",
    "FlowEngine",
    "FlowError",
    "FlowFault",
    "InputError",
    "Kind",
    "PlaceGone",
    "Priority",
    "Problem",
    "Reason",
    "Registry",
    "Retry",
    "RunEvent",
    "RunFilter",
    "RunId",
    "RunRecord",
    "RunState",
    "Step",
    "StepError",
    "StepRecord",
    "StepState",
    "StepWait",
    "UnknownFlow",
    "UnknownRun",
    "WrongState",
    "step",
    "tables",
]
