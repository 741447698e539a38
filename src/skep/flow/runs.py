"""Runs and their steps: what the outside sees (records), and what the engine keeps and stores (rows)."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from typing import Any

from msgspec import Struct

from skep.flow.steps import RunId


class Priority(IntEnum):
    """Five queues that are served in parallel; a smaller number goes first."""

    URGENT = 0
    HIGH = 1
    NORMAL = 2
    LOW = 3
    BULK = 4


class RunState(StrEnum):
    PENDING = "pending"
    """Waits for its locks."""
    RUNNING = "running"
    WAITING = "waiting"
    """Everything that is left waits for a signal, an approval or a time."""
    PAUSED = "paused"
    """Starts no further step until it is resumed."""
    SUCCEEDED = "succeeded"
    UNDOING = "undoing"
    FAILED = "failed"
    """A step failed, and everything is undone."""
    CANCELLED = "cancelled"
    """Stopped on request, and everything is undone."""
    NEEDS_OPERATOR = "needs-operator"
    """A person must decide (`FlowEngine.resolve`); the locks stay held."""

    @property
    def ended(self) -> bool:
        return self in _ENDED


_ENDED = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED})


class StepState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    """For a signal, an approval or a time."""
    RETRYING = "retrying"
    """Failed, and waits to be tried again."""
    SUCCEEDED = "succeeded"
    SKIPPED = "skipped"
    """Its condition did not hold, or an operator said to go on without it."""
    FAILED = "failed"
    UNDOING = "undoing"
    UNDONE = "undone"
    KEPT = "kept"
    """An operator said to leave it as it is, not undone."""
    NEEDS_OPERATOR = "needs-operator"
    """Its undo failed too often, or nobody knows whether it ran."""


class RunRecord(Struct, frozen=True, kw_only=True):
    """One execution of a flow.  `done` of `total` steps have succeeded; times are UTC."""

    id: RunId
    flow: str
    title: str
    tenant: str
    labels: dict[str, str]
    state: RunState
    done: int
    total: int
    input: dict[str, Any]
    output: dict[str, Any]
    error: str
    """`step web-0.start: no such image`, of the first step that failed."""
    priority: Priority
    worker: str
    """Who carries it out; "" is nobody now."""
    deadline: datetime | None
    parent: str
    """The run that this one does again, or ""."""
    created: datetime
    started: datetime | None
    finished: datetime | None


class StepRecord(Struct, frozen=True, kw_only=True):
    """One step of a run; `after` are the names of the steps that it waits for."""

    name: str
    use: str
    state: StepState
    after: tuple[str, ...]
    attempts: int
    started: datetime | None
    finished: datetime | None
    message: str
    """The last line of progress, or the error."""


class RunEvent(Struct, frozen=True, kw_only=True):
    """One line of a run's history; `sequence` counts from 1 within the run.

    Kinds: started, progress, succeeded, failed, retrying, in-doubt, undoing, undone, undo-retrying,
    undo-failed, resolved of a step; run-created, run-started, run-resumed, run-undoing, run-needs-operator,
    run-succeeded, run-failed, run-cancelled of the run itself (`step` is empty).
    """

    sequence: int
    run: RunId
    step: str
    kind: str
    at: datetime
    message: str


class Reason(Struct, frozen=True, kw_only=True):
    """One thing that a step, or a run as a whole, waits for; `message` says it in a sentence.

    Kinds: dependency, condition, limit, rate, fairness, slot, lock, lease, timer, signal, approval, version,
    paused, quarantine, operator, retry, running.
    """

    kind: str
    subject: str
    """The step, key, signal or bundle that is waited for."""
    message: str
    holders: tuple[str, ...] = ()
    """Who has it: `run` or `run/step`."""
    until: datetime | None = None
    """When it passes by itself, where that is known."""


class StepWait(Struct, frozen=True, kw_only=True):
    """Why a step that has not ended is where it is; `step` is "" for the run itself."""

    step: str
    state: str
    reasons: tuple[Reason, ...]


class RunFilter(Struct, frozen=True, kw_only=True):
    """Which runs are meant; all of the conditions hold for each."""

    tenant: str | None = None
    flow: str | None = None
    labels: dict[str, str] = {}
    states: tuple[RunState, ...] = ()
    """Any of these; empty: all."""
    active: bool | None = None
    """True: not ended; False: ended."""
    failed_step: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


class Claim(Struct, frozen=True, array_like=True):
    """A key that a run holds from before its first step to its end, as one of at most `capacity` runs."""

    key: str
    capacity: int = 1


class RunRow(Struct, gc=False):
    """A row of `flow_runs`.  `cause` is empty while the run goes forward, else why it is undone."""

    id: RunId
    flow: str
    definition: str
    title: str
    tenant: str
    labels: dict[str, str]
    key: str | None
    input: bytes
    locks: tuple[Claim, ...]
    total: int
    created: float
    parent: str = ""
    priority: int = Priority.NORMAL
    deadline: float | None = None
    state: RunState = RunState.PENDING
    cause: str = ""
    error: str = ""
    output: bytes = b"{}"
    epoch: int = 1
    """Grows each time the run changes hands."""
    round: int = 0
    """How often it was tried again after it had failed; part of the keys of its steps."""
    crashes: int = 0
    """How many workers died, one after another, while they carried it out."""
    paused: bool = False
    worker: str | None = None
    started: float | None = None
    finished: float | None = None


class StepRow(Struct, gc=False):
    """A row of `flow_steps`."""

    state: StepState = StepState.RUNNING
    attempts: int = 0
    undo_attempts: int = 0
    result: bytes | None = None
    """JSON; None if there is none, or if it is large and stored under `blob`."""
    blob: str | None = None
    error: str = ""
    message: str = ""
    started: float | None = None
    finished: float | None = None


@dataclass(slots=True)
class Attempts:
    """What a worker remembers of a step that failed; a restart forgets it, so that it starts afresh."""

    failures: int = 0
    first: float = 0.0
    undo_failures: int = 0


@dataclass(slots=True)
class Signal:
    """What somebody told a run; kept until a step takes it, and with the run's history after that."""

    id: str
    name: str
    body: bytes
    """JSON."""
    by: str
    at: float
    step: str | None = None
    """The step that took it."""


@dataclass(slots=True)
class Request:
    """What another process asks of a run's worker."""

    id: str
    run: RunId
    kind: str
    body: bytes
    """JSON."""
    by: str


@dataclass(slots=True)
class StoredRun:
    """An unfinished run as it was found in the tables."""

    row: RunRow
    content: bytes
    steps: dict[str, StepRow] = field(default_factory=dict)
    signals: list[Signal] = field(default_factory=list)
    """Those that no step has taken, oldest first."""
    sequence: int = 0
    crashed: bool = False
    """The worker that had it died; it did not give the run back."""
    suspect: bool = False
    """That worker died while it carried out this run alone."""


def moment(seconds: float | None) -> datetime | None:
    """In UTC; what lies beyond the calendar is its last day."""
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError):
        return datetime.max.replace(tzinfo=UTC)
