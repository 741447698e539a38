"""Where the time of a run went: which steps it had to wait for, and how long each was blocked, queued, ran.

Pure.  A step is ready when the last of those it comes after has ended, is queued until it is started, and
runs, with its retries, until it ends.  The step that ended last decided when the run did; the last to end of
those before it decided when that one was ready; and so on back to the start.  A fan-out is ready and ends
with its items, so the chain leads through these.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from graphlib import TopologicalSorter

from msgspec import Struct

from skep.flow.runs import StepRecord

JOINING = 0.001
"""Seconds between the end of the last item and that of the fan-out that are nothing worth showing."""


class Timing(Struct, frozen=True, kw_only=True):
    """A step in seconds; of one that has not ended, until now."""

    step: str
    blocked: float
    """From the start of the run until all that it comes after had ended."""
    queued: float
    """Ready, and not started: for want of a slot, of room within a limit, of its turn."""
    running: float


class CriticalPath(Struct, frozen=True, kw_only=True):
    """The chain of steps that decided how long a run took, first to last.

    Its `total` seconds are what the steps of the chain were queued and ran, and what is `behind` them.
    """

    steps: tuple[Timing, ...]
    total: float
    behind: float
    """From the end of the chain to the end of the run: undoing counts here."""
    slack: Mapping[str, float]
    """By so many seconds each step could have ended later, and the run would have ended when it did."""


class _Span(Struct, frozen=True):
    """Moments in seconds since the start of the run."""

    ready: float
    started: float
    ended: float


def timings(steps: Sequence[StepRecord], started: datetime, now: datetime) -> dict[str, Timing]:
    """Of every step that is or was ready, by name; `steps` as `FlowEngine.steps` answers them."""
    return {name: _timing(name, span) for name, span in _spans(steps, started, now).items()}


def critical_path(steps: Sequence[StepRecord], started: datetime, finished: datetime) -> CriticalPath:
    """Of a run that has ended; steps that it never came to are passed over."""
    ended = [step for step in steps if step.finished is not None]
    spans = _spans(ended, started, finished)
    graph = _Graph(ended, spans)
    chain = graph.chain()
    total = (finished - started).total_seconds()
    return CriticalPath(
        steps=tuple(_timing(name, span) for name, span in chain),
        total=total,
        behind=total - (chain[-1][1].ended if chain else 0.0),
        slack=graph.slack(),
    )


class _Graph:
    """The steps of a run by name: those before each, and the items of each fan-out."""

    def __init__(self, steps: Iterable[StepRecord], spans: Mapping[str, _Span]) -> None:
        self._spans = spans
        self._before = {
            step.name: [name for name in step.after if name in spans] for step in steps if step.name in spans
        }
        self._items: dict[str, list[str]] = defaultdict(list)
        for name in self._before:
            if _fanout_of(name) in spans:
                self._items[_fanout_of(name)].append(name)

    def chain(self) -> list[tuple[str, _Span]]:
        """First to last; each span begins where the one before it ends."""
        chain: list[tuple[str, _Span]] = []
        name = self._last(name for name in self._before if _fanout_of(name) not in self._spans)
        while name:
            span = self._spans[name]
            if self._items[name]:
                last = self._last(self._items[name])
                joining = self._joining(name)
                if joining.ended - joining.ready > JOINING:
                    chain.append((name, joining))
                name = last
                continue
            chain.append((name, span))
            name = self._last(self._leading_to(name))
        return chain[::-1]

    def slack(self) -> dict[str, float]:
        """Backwards from the end: what comes after a step takes as long as it took, being queued included."""
        latest: dict[str, float] = {}
        end = max((span.ended for span in self._spans.values()), default=0.0)
        edges = self._edges()
        after: dict[str, list[str]] = defaultdict(list)
        for event, earlier in edges.items():
            for name in earlier:
                after[name].append(event)
        for event in reversed([*TopologicalSorter(edges).static_order()]):
            latest[event] = min((latest[name] - self._took(name) for name in after[event]), default=end)
        return {name: max(0.0, latest[name] - span.ended) for name, span in self._spans.items()}

    def _edges(self) -> dict[str, list[str]]:
        """Events and what they wait for: the end of each step, and the opening of each fan-out."""
        edges: dict[str, list[str]] = {}
        for name, before in self._before.items():
            fanout = _fanout_of(name)
            waits = before or ([_opening(fanout)] if fanout in self._spans else [])
            if self._items[name]:
                edges[_opening(name)], edges[name] = waits, self._items[name]
            else:
                edges[name] = waits
        return edges

    def _took(self, event: str) -> float:
        if event not in self._spans:
            return 0.0
        span = self._joining(event) if self._items[event] else self._spans[event]
        return span.ended - span.ready

    def _joining(self, fanout: str) -> _Span:
        """From the end of its last item to its own: failed items are undone."""
        ended = self._spans[fanout].ended
        last = min(ended, max(self._spans[name].ended for name in self._items[fanout]))
        return _Span(last, last, ended)

    def _leading_to(self, name: str) -> Sequence[str]:
        """What decided when the step was ready; the first of an item was ready when its fan-out was."""
        while name in self._before and not self._before[name]:
            name = _fanout_of(name)
        return self._before.get(name, ())

    def _last(self, names: Iterable[str]) -> str:
        """Of those that ended together the later one: it may have come after the others."""
        return max(reversed([*names]), key=lambda name: self._spans[name].ended, default="")


def _spans(steps: Sequence[StepRecord], started: datetime, now: datetime) -> dict[str, _Span]:
    """Of the steps before which all has ended.  Clocks may be set back: nothing takes less than 0 seconds."""
    names = {step.name for step in steps}
    spans: dict[str, _Span] = {}
    ends: dict[str, float] = {}
    for step in steps:
        before = [name for name in step.after if name in names]
        fanout = spans.get(_fanout_of(step.name))
        if any(name not in ends for name in before):
            continue
        ready = max((ends[name] for name in before), default=fanout.ready if fanout else 0.0)
        ended = max(ready, _since(started, step.finished or now))
        begun = min(ended, max(ready, _since(started, step.started or step.finished or now)))
        spans[step.name] = _Span(ready, begun, ended)
        if step.finished is not None:
            ends[step.name] = ended
    return spans


def _timing(name: str, span: _Span) -> Timing:
    queued, running = span.started - span.ready, span.ended - span.started
    return Timing(step=name, blocked=span.ready, queued=queued, running=running)


def _since(started: datetime, moment: datetime) -> float:
    return max(0.0, (moment - started).total_seconds())


def _fanout_of(name: str) -> str:
    """`a[2].b` of `a[2].b[5].c`; "" if the step belongs to no item."""
    return name.rpartition("[")[0]


def _opening(fanout: str) -> str:
    return f"{fanout}["
