"""A run that this process is carrying out."""

import asyncio
from dataclasses import dataclass, field

from skep.flow.definition.registry import Bound
from skep.flow.execution.execution import Execution
from skep.flow.runs import Attempts, RunRow
from skep.flow.steps import RunId


@dataclass(slots=True, eq=False)
class ActiveRun:
    """Its row, its graph, and what is under way.  `bound` is None if it cannot be loaded."""

    row: RunRow
    bound: Bound | None
    execution: Execution
    sequence: int = 0
    """The number of its last event."""
    tasks: dict[int, asyncio.Task[object]] = field(default_factory=dict)
    timers: dict[int, asyncio.TimerHandle] = field(default_factory=dict)
    tries: dict[int, Attempts] = field(default_factory=dict)
    stuck: set[int] = field(default_factory=set)
    """Steps that wait for an operator."""
    followers: set[asyncio.Event] = field(default_factory=set)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the end is durable, or when the engine is closed."""

    @property
    def id(self) -> RunId:
        return self.row.id

    def name(self, index: int) -> str:
        return self.execution.graph.names[index]

    def remember(self, index: int) -> Attempts:
        return self.tries.setdefault(index, Attempts())

    def wake(self) -> None:
        """Tell whoever follows it that there is more to read."""
        for follower in self.followers:
            follower.set()
