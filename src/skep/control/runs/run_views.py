"""Runs as people see them: from the engine's records to the views of the API.  Pure."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime

from skep.control.clock import rfc3339
from skep.flow import Reason, RunEvent, RunRecord, StepRecord, StepWait
from skep.flow.definition.plan import PlannedStep
from skep.flow.monitoring.critical_path import Timing, timings
from skep.model.views.runs import GraphNode, ReasonView, RunEventView, RunView, StepView, WaitView

_TELLING = (
    "needs-operator",
    "failed",
    "undoing",
    "retrying",
    "running",
    "waiting",
    "pending",
    "undone",
    "kept",
    "succeeded",
    "skipped",
)
"""Of the steps of an item, the first of these is the state of the item."""
_ITEM = re.compile(r"\[\d+\]")
_OURS = re.compile(r"\b(0[0-9a-f]{23}|0[0-9a-hjkmnp-tv-z]{19})\b(/[^\s,;()]+[^\s,;().])?")
"""Runs (with a step behind), and tenants, in a sentence: ids of this millennium begin with a 0."""


def run(record: RunRecord, tenant: str, *, archived: bool = False) -> RunView:
    """`tenant`: its name."""
    return RunView(
        id=record.id,
        flow=record.flow,
        title=record.title,
        tenant=tenant,
        state=record.state.value,
        done=record.done,
        total=record.total,
        error=record.error or "",
        created=rfc3339(record.created),
        started=rfc3339(record.started),
        finished=rfc3339(record.finished),
        output=record.output or {},
        priority=record.priority.name.lower(),
        worker=record.worker,
        deadline=rfc3339(record.deadline),
        parent=record.parent,
        labels=record.labels,
        archived=archived,
    )


def steps(record: RunRecord, found: Sequence[StepRecord], now: float) -> tuple[StepView, ...]:
    times = times_of(record, found, now)
    return tuple(step(one, times.get(one.name)) for one in found)


def step(record: StepRecord, timing: Timing | None, items: Mapping[str, int] | None = None) -> StepView:
    begun = record.started is not None and timing is not None
    return StepView(
        name=record.name,
        use=record.use,
        state=record.state.value,
        after=tuple(record.after),
        attempts=record.attempts,
        started=rfc3339(record.started),
        finished=rfc3339(record.finished),
        message=record.message or "",
        queued=round(timing.queued, 3) if timing is not None else None,
        ran=round(timing.running, 3) if begun and timing is not None else None,
        items=dict(items or {}),
    )


def folded(record: RunRecord, found: Sequence[StepRecord], now: float) -> tuple[StepView, ...]:
    """The steps of the flow itself; the items of each fan-out are counted by their states."""
    times, counts = times_of(record, found, now), items_of(found)
    whole = [one for one in found if "[" not in one.name]
    return tuple(step(one, times.get(one.name), counts.get(one.name)) for one in whole)


def items_of(found: Iterable[StepRecord]) -> dict[str, dict[str, int]]:
    """How many items of each fan-out are in which state, as far as they have begun."""
    states: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for one in found:
        fanout, bracket, rest = one.name.partition("[")
        if bracket:
            states[fanout][rest.partition("]")[0]].add(one.state.value)
    return {
        fanout: dict(Counter(most_telling(item) for item in items.values()))
        for fanout, items in states.items()
    }


def most_telling(states: set[str]) -> str:
    return next((state for state in _TELLING if state in states), min(states))


def times_of(record: RunRecord, found: Sequence[StepRecord], now: float) -> Mapping[str, Timing]:
    """`now`: seconds since 1970; of an ended run its end counts."""
    if record.started is None:
        return {}
    until = record.finished or datetime.fromtimestamp(now, UTC)
    return timings(found, record.started, until)


def took(record: RunRecord, found: Sequence[StepRecord], now: float) -> Mapping[str, float]:
    """Seconds that each step ran which has begun."""
    begun = {one.name for one in found if one.started is not None}
    times = times_of(record, found, now)
    return {name: timing.running for name, timing in times.items() if name in begun}


def nodes(
    record: RunRecord, plan: Sequence[PlannedStep], found: Sequence[StepRecord], now: float
) -> tuple[GraphNode, ...]:
    """The steps of the flow with what has become of them."""
    kinds = {one.name: _kind(one) for one in plan}
    times = times_of(record, found, now)
    counts = items_of(found)
    return tuple(
        _node(one, kinds[one.name], times.get(one.name), counts.get(one.name, {}))
        for one in found
        if one.name in kinds
    )


def _node(one: StepRecord, kind: str, timing: Timing | None, items: dict[str, int]) -> GraphNode:
    return GraphNode(
        name=one.name,
        use=one.use,
        kind=kind,
        state=one.state.value,
        after=tuple(one.after),
        attempts=one.attempts,
        blocked=None if timing is None else round(timing.blocked, 3),
        queued=None if timing is None else round(timing.queued, 3),
        running=None if timing is None or one.started is None else round(timing.running, 3),
        items=items,
        message=one.message or "",
    )


def _kind(planned: PlannedStep) -> str:
    return "fan-out" if planned.each is not None else "wait" if planned.wait is not None else "step"


def event(found: RunEvent) -> RunEventView:
    return RunEventView(
        sequence=found.sequence,
        run=found.run,
        step=found.step,
        kind=found.kind,
        at=rfc3339(found.at),
        message=found.message,
    )


# why

Name = Callable[[str], str | None]
"""What to call the run or the tenant of an id; None: the caller may not know of it."""


def waits(found: Iterable[StepWait], name: Name) -> list[WaitView]:
    return [
        WaitView(step=one.step, state=one.state, reasons=tuple(reason(item, name) for item in one.reasons))
        for one in found
    ]


def reason(found: Reason, name: Name) -> ReasonView:
    def tell(match: re.Match[str]) -> str:
        known = name(match[1])
        if known is None:
            return "somebody else"
        return f"{known}{match[2] or ''}"

    holders = [tell(match) for holder in found.holders if (match := _OURS.fullmatch(holder))]
    return ReasonView(
        kind=found.kind,
        subject=_OURS.sub(tell, found.subject),
        message=_OURS.sub(tell, found.message),
        holders=tuple(holder for holder in holders if holder != "somebody else"),
        until=rfc3339(found.until),
    )


def ids_in(found: Iterable[StepWait]) -> set[str]:
    """Of everything that the reasons name."""
    texts = (
        text for one in found for item in one.reasons for text in (item.message, item.subject, *item.holders)
    )
    return {match[1] for text in texts for match in _OURS.finditer(text)}
