"""A run that this process is carrying out."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from skep.flow.admission.tickets import Ticket
from skep.flow.definition.registry import Bound
from skep.flow.execution.execution import FINISHED, Execution
from skep.flow.execution.fanout import Scope
from skep.flow.runs import Attempts, Priority, RunRecord, RunRow, Signal, moment
from skep.flow.steps import RunId


@dataclass(slots=True, eq=False, weakref_slot=True)
class ActiveRun:
    """Its row, its graph, and what is under way.  `bound` is None if it cannot be loaded."""

    row: RunRow
    bound: Bound | None
    execution: Execution
    sequence: int = 0
    """The number of its last event."""
    tasks: dict[int, asyncio.Task[object]] = field(default_factory=dict)
    timers: dict[int, asyncio.TimerHandle] = field(default_factory=dict)
    """Of steps: the next try, or the time that is waited for."""
    deadline: asyncio.TimerHandle | None = None
    tickets: dict[int, Ticket] = field(default_factory=dict)
    """Of steps that could run and are not admitted yet."""
    held: dict[int, bool] = field(default_factory=dict)
    """Steps that wait for the run to be resumed; True: their undo."""
    waiting: dict[int, str] = field(default_factory=dict)
    """Waiting steps, with the name of the signal that ends it, or ""."""
    elapsing: dict[int, float] = field(default_factory=dict)
    """Since when a step has waited, by the loop's time."""
    signals: list[Signal] = field(default_factory=list)
    """Those that no step has taken yet, oldest first."""
    heard: set[str] = field(default_factory=set)
    """The ids of all signals that reached it here."""
    tries: dict[int, Attempts] = field(default_factory=dict)
    stuck: set[int] = field(default_factory=set)
    """Steps that wait for an operator."""
    dropped: list[Scope] = field(default_factory=list)
    """Items of fan-outs that have failed and are not being undone yet."""
    granted: bool = False
    """It holds its locks."""
    begun: bool = False
    """It goes on here: it holds its locks, and no suspect goes before it."""
    abandoned: bool = False
    """It is no more this worker's: what still happens to it here is not recorded."""
    followers: set[asyncio.Event] = field(default_factory=set)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the end is durable, or when the engine is closed."""

    @property
    def id(self) -> RunId:
        return self.row.id

    @property
    def isolated(self) -> bool:
        """It needs its operator as a whole, not one of its steps."""
        return self.bound is None

    def name(self, index: int) -> str:
        return self.execution.name(index)

    def remember(self, index: int) -> Attempts:
        return self.tries.setdefault(index, Attempts())

    def wake(self) -> None:
        """Tell whoever follows it that there is more to read."""
        for follower in self.followers:
            follower.set()

    def record(self) -> RunRecord:
        """What a reader of the tables would find."""
        row = self.row
        return RunRecord(
            id=row.id,
            flow=row.flow,
            title=row.title,
            tenant=row.tenant,
            labels=row.labels,
            state=row.state,
            done=sum(found is not None and found.state in FINISHED for found in self.execution.rows),
            total=row.total,
            input=msgspec.json.decode(row.input),
            output=msgspec.json.decode(row.output),
            error=row.error,
            priority=Priority(row.priority),
            worker=row.worker or "",
            deadline=moment(row.deadline),
            parent=row.parent,
            created=datetime.fromtimestamp(row.created, UTC),
            started=moment(row.started),
            finished=moment(row.finished),
        )

    def stop_timer(self, index: int) -> None:
        timer = self.timers.pop(index, None)
        if timer is not None:
            timer.cancel()

    def stop_timers(self) -> None:
        for timer in self.timers.values():
            timer.cancel()
        self.timers.clear()
        self.stop_deadline()

    def stop_deadline(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None
