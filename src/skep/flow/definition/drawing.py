"""A plan as nodes and edges to be drawn, with what a run has made of them so far."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from skep.flow.definition.expressions import Reference, references
from skep.flow.definition.graph import expressions_of, names_in
from skep.flow.definition.plan import Plan, PlannedStep
from skep.flow.definition.writing import span, written

_NUMBER = re.compile(r"\[\d+\]")
_LONGEST_LABEL = 24
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
"""Of the items of a fan-out the first of these is what its node shows."""

Kind = Literal["step", "wait", "fan-out"]


@dataclass(frozen=True)
class Node:
    """`lines`: the name, and what it does; `body`: what a fan-out over a sub-flow does for each item."""

    kind: Kind
    name: str
    lines: tuple[str, ...]
    state: str = ""
    body: "Drawing | None" = None


@dataclass(frozen=True)
class Edge:
    """Indexes of nodes; `label`: the fields that flow along it; without `data` it is only an order."""

    source: int
    target: int
    data: bool
    label: str = ""


@dataclass(frozen=True)
class Drawing:
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


@dataclass(frozen=True)
class Progress:
    """What a run has made of its steps: their states, and how many seconds they took, by name."""

    states: Mapping[str, str] = field(default_factory=dict)
    took: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, states: Mapping[str, str] | None, took: Mapping[str, float] | None) -> "Progress":
        """Steps within fan-outs are summed up under the name that the plan gives them."""
        many: dict[str, set[str]] = defaultdict(set)
        longest: dict[str, float] = defaultdict(float)
        for name, state in (states or {}).items():
            many[_NUMBER.sub("", name)].add(str(state))
        for name, seconds in (took or {}).items():
            plain = _NUMBER.sub("", name)
            longest[plain] = max(longest[plain], seconds)
        return cls({name: _most_telling(found) for name, found in many.items()}, longest)


def draw(plan: Plan, progress: Progress | None = None) -> Drawing:
    return _draw(plan.steps, "", progress or Progress())


def _draw(steps: Sequence[PlannedStep], prefix: str, progress: Progress) -> Drawing:
    nodes = tuple(_node(step, prefix, progress) for step in steps)
    edges = [edge for index, step in enumerate(steps) for edge in _edges(index, step, steps)]
    return Drawing(nodes, tuple(edges))


def _node(step: PlannedStep, prefix: str, progress: Progress) -> Node:
    name = step.name.removeprefix(prefix)
    lines = [name, _does(step)]
    if step.when is not None:
        lines.append(f"when {written(step.when)}")
    if step.name in progress.took:
        lines.append(span(progress.took[step.name]))
    kind: Kind = "fan-out" if step.each else "wait" if step.wait else "step"
    return Node(kind, step.name, tuple(lines), progress.states.get(step.name, ""), _body(step, progress))


def _body(step: PlannedStep, progress: Progress) -> Drawing | None:
    if step.each is None or [inner.name for inner in step.each.steps] == [step.name]:
        return None
    return _draw(step.each.steps, f"{step.name}.", progress)


def _does(step: PlannedStep) -> str:
    if step.wait is not None:
        return f"{step.wait.kind} {written(step.wait.value)}"
    if step.each is not None:
        inner = step.each.steps[0] if len(step.each.steps) == 1 else None
        what = _does(inner) if inner is not None and inner.name == step.name else ""
        return f"{what} for each of {written(step.each.items)}".strip()
    return step.use


def _edges(index: int, step: PlannedStep, steps: Sequence[PlannedStep]) -> Iterable[Edge]:
    used: dict[str, dict[str, None]] = defaultdict(dict)
    own = names_in(step)
    for expression in expressions_of(step):
        for reference in references(expression):
            if reference.source not in own:
                used[reference.source][_fields(reference)] = None
    for before in step.after:
        found = used.get(steps[before].name)
        yield Edge(before, index, found is not None, _label(found or {}))


def _fields(reference: Reference) -> str:
    return ".".join(reference.path)


def _label(fields: Iterable[str]) -> str:
    text = ", ".join(filter(None, fields))
    return text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 1]}…"


def _most_telling(states: set[str]) -> str:
    return next((state for state in _TELLING if state in states), min(states))
