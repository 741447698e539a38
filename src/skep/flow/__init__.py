"""A durable flow engine; has never heard of clouds.

Flows are data (YAML that wires steps), steps are code (typed async functions).  Joining it:

    registry = Registry()
    registry.add_module(my_steps)
    registry.add_flows("my.flows")
    database = await Database.open("sqlite+aiosqlite:///flows.db")
    async with FlowEngine(database, registry, lambda route: environment) as engine:
        run = await engine.start("replica.create", {"replica": "web-0"})
        await engine.wait(run)

A name is loaded when it is asked for: who only knows the errors, as a host's agent, loads no database driver.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skep.flow.definition.plan import Flow as Flow
    from skep.flow.definition.registry import Registry as Registry
    from skep.flow.engine import FlowEngine as FlowEngine
    from skep.flow.errors import CommitFailed as CommitFailed
    from skep.flow.errors import Fenced as Fenced
    from skep.flow.errors import FlowError as FlowError
    from skep.flow.errors import FlowFault as FlowFault
    from skep.flow.errors import InputError as InputError
    from skep.flow.errors import PlaceGone as PlaceGone
    from skep.flow.errors import Problem as Problem
    from skep.flow.errors import StepError as StepError
    from skep.flow.errors import UnknownFlow as UnknownFlow
    from skep.flow.errors import UnknownRun as UnknownRun
    from skep.flow.errors import WrongState as WrongState
    from skep.flow.execution.operator import Choice as Choice
    from skep.flow.runs import Priority as Priority
    from skep.flow.runs import Reason as Reason
    from skep.flow.runs import RunEvent as RunEvent
    from skep.flow.runs import RunFilter as RunFilter
    from skep.flow.runs import RunRecord as RunRecord
    from skep.flow.runs import RunState as RunState
    from skep.flow.runs import StepRecord as StepRecord
    from skep.flow.runs import StepState as StepState
    from skep.flow.runs import StepWait as StepWait
    from skep.flow.steps import Context as Context
    from skep.flow.steps import Kind as Kind
    from skep.flow.steps import Retry as Retry
    from skep.flow.steps import RunId as RunId
    from skep.flow.steps import Step as Step
    from skep.flow.steps import step as step
    from skep.flow.storage.database import Database as Database

_HOMES = {
    "definition.plan": "Flow",
    "definition.registry": "Registry",
    "engine": "FlowEngine",
    "errors": "CommitFailed Fenced FlowError FlowFault InputError PlaceGone Problem StepError UnknownFlow "
    "UnknownRun WrongState",
    "execution.operator": "Choice",
    "runs": "Priority Reason RunEvent RunFilter RunRecord RunState StepRecord StepState StepWait",
    "steps": "Context Kind Retry RunId Step step",
    "storage.database": "Database",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}


def load() -> None:
    """All names now: for a process in which nothing can be loaded later."""
    for home in _HOMES:
        import_module(f"{__name__}.{home}")


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """See PEP 562."""
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
        return found
