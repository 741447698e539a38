"""Runs and their steps: what the outside sees (records), and what the engine keeps and stores (rows)."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from msgspec import Struct

from skep.flow.steps import RunId


class RunState(StrEnum):
    PENDING = "pending"
    """Waits for its locks."""
    RUNNING = "running"
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
    RETRYING = "retrying"
    """Failed, and waits to be tried again."""
    SUCCEEDED = "succeeded"
    SKIPPED = "skipped"
    """An operator said to go on as if it had succeeded."""
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


@dataclass(slots=True)
class RunRow:
    """A row of `flow_runs`.  `cause` is empty while the run goes forward, else why it is undone."""

    id: RunId
    flow: str
    definition: str
    title: str
    tenant: str
    labels: dict[str, str]
    key: str | None
    input: bytes
    locks: tuple[str, ...]
    total: int
    created: float
    state: RunState = RunState.PENDING
    cause: str = ""
    error: str = ""
    output: bytes = b"{}"
    epoch: int = 1
    started: float | None = None
    finished: float | None = None


@dataclass(slots=True)
class StepRow:
    """A row of `flow_steps`."""

    state: StepState = StepState.RUNNING
    attempts: int = 0
    undo_attempts: int = 0
    result: bytes | None = None
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
class StoredRun:
    """An unfinished run as it was found in the tables."""

    row: RunRow
    content: bytes
    steps: dict[str, StepRow] = field(default_factory=dict)
    sequence: int = 0


def moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
