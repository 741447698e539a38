"""What the API answers about the flow engine: why runs wait, their graphs, flows, bundles, schedules, limits.

Times are RFC 3339 in UTC, spans are seconds.  Fields are only ever added.
"""

from typing import Any

from skep.model.views import RunView, View

# runs


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


# flows


class FlowView(View, frozen=True, kw_only=True):
    name: str
    steps: int
    input: dict[str, str]
    bundle: str = ""
    """The hash of the bundle it belongs to; "" is the program's own."""


class FlowDetail(View, frozen=True, kw_only=True):
    flow: FlowView
    text: str
    """What it takes, its steps in order and what each waits for, and what it gives."""


class ProblemView(View, frozen=True, kw_only=True):
    file: str
    line: int
    step: str
    reason: str


class CheckView(View, frozen=True, kw_only=True):
    """What came of checking flow documents; without problems they can run."""

    flows: tuple[str, ...]
    problems: tuple[ProblemView, ...]


class DrawnView(View, frozen=True, kw_only=True):
    """A flow as a picture: `svg`, `mermaid` or `text`."""

    flow: str
    format: str
    content: str


class CodeView(View, frozen=True, kw_only=True):
    """A step that flows may use."""

    name: str
    kind: str
    parameters: dict[str, str]
    required: tuple[str, ...]
    returns: str
    undo: bool
    retry: int
    timeout: float | None
    heartbeat: float | None
    description: str
    bundle: str = ""


# bundles


class BundleView(View, frozen=True, kw_only=True):
    hash: str
    name: str
    version: str
    description: str
    active: bool
    process: str
    steps: tuple[str, ...]
    """Its modules."""
    requirements: tuple[str, ...]
    rights: dict[str, Any]
    by: str
    pushed: str


class FateView(View, frozen=True, kw_only=True):
    """What would become of one run; `verdict`: finishes on old, can be migrated, blocked."""

    run: str
    flow: str
    verdict: str
    reasons: tuple[str, ...]


class PreflightView(View, frozen=True, kw_only=True):
    bundle: BundleView
    fates: tuple[FateView, ...]


# schedules and limits


class ScheduleView(View, frozen=True, kw_only=True):
    name: str
    tenant: str
    flow: str
    input: dict[str, Any]
    cron: str
    timezone: str
    overlap: str
    missed: str
    priority: str | None
    paused: bool
    next: str
    last: str | None
    last_run: str
    error: str
    """Why the last due time began no run, or ""."""
    by: str
    changed: str


class LimitView(View, frozen=True, kw_only=True):
    """What an operator allows for a key; None leaves it to less exact keys and to the flow."""

    key: str
    concurrency: int | None
    rate: float | None
    """So many begin per second."""
    burst: float | None
    weight: float | None
    by: str
    changed: str | None
