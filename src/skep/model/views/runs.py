"""Runs: their steps, why they wait, their graphs, what they did."""

import msgspec

from skep.model.views.base import View


class StepView(View, frozen=True, kw_only=True):
    name: str
    use: str
    state: str
    after: tuple[str, ...]
    attempts: int
    started: str | None
    finished: str | None
    message: str = ""
    """The last progress line, or the error."""
    queued: float | None = None
    """Seconds from when nothing that it comes after was left until it was started."""
    ran: float | None = None
    """Seconds, tries and pauses between them included; of one that goes on, until now."""
    items: dict[str, int] = msgspec.field(default_factory=dict)
    """Of a fan-out that is folded: how many of its items are in which state."""


class RunView(View, frozen=True, kw_only=True):
    id: str
    flow: str
    title: str
    tenant: str
    state: str
    """pending, running, waiting, paused, succeeded, failed (undone), cancelled, undoing, needs-operator"""
    done: int
    total: int
    error: str
    created: str
    started: str | None
    finished: str | None
    output: dict[str, object] = msgspec.field(default_factory=dict)
    priority: str = "normal"
    """urgent, high, normal, low, bulk"""
    worker: str = ""
    """Who carries it out; "" is nobody now."""
    deadline: str | None = None
    parent: str = ""
    """The run that this one does again, or ""."""
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    archived: bool = False


class RunDetail(View, frozen=True, kw_only=True):
    run: RunView
    steps: tuple[StepView, ...]


class RunEventView(View, frozen=True, kw_only=True):
    """One line of a run's history, as `GET /v1/runs/{id}/events` streams it."""

    sequence: int
    run: str
    step: str
    kind: str
    """started, progress, succeeded, failed, retrying, undoing, undone, run-… for the run itself"""
    at: str
    message: str = ""


class ReasonView(View, frozen=True, kw_only=True):
    """One thing that a step, or a run as a whole, waits for."""

    kind: str
    """dependency, limit, rate, fairness, slot, lock, lease, timer, signal, approval, version, paused,
    quarantine, operator, retry, running"""
    subject: str
    """The step, key, signal or bundle that is waited for."""
    message: str
    holders: tuple[str, ...] = ()
    """Who has it: `run` or `run/step`.  Those of other tenants are left out."""
    until: str | None = None


class WaitView(View, frozen=True, kw_only=True):
    """Why a step that has not ended is where it is; `step` is "" for the run itself."""

    step: str
    state: str
    reasons: tuple[ReasonView, ...]


class GraphNode(View, frozen=True, kw_only=True):
    """A step of the flow; the items of a fan-out are counted, not listed."""

    name: str
    use: str
    kind: str
    """step, wait, fan-out"""
    state: str
    after: tuple[str, ...]
    attempts: int
    blocked: float | None
    """Seconds from the start of the run until all that it comes after had ended."""
    queued: float | None
    """Seconds from then until it was started."""
    running: float | None
    items: dict[str, int]
    message: str = ""


class RunGraph(View, frozen=True, kw_only=True):
    run: RunView
    nodes: tuple[GraphNode, ...]


class PathStep(View, frozen=True, kw_only=True):
    step: str
    blocked: float
    queued: float
    running: float


class CriticalPathView(View, frozen=True, kw_only=True):
    """The chain of steps that decided how long a run took; `behind` is from its end to that of the run."""

    run: RunView
    total: float
    behind: float
    steps: tuple[PathStep, ...]
    slack: dict[str, float]
    """By so much each step could have ended later without the run ending later."""


class ActedView(View, frozen=True, kw_only=True):
    """What came of one run of many."""

    run: str
    title: str = ""
    state: str = ""
    error: str = ""
    """Why it could not be done; "" if it was."""
    started: str | None = None
    """The run that a rerun began."""
