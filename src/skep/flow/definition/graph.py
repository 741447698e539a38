"""The shape of a plan by index, shared by all its runs."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

from skep.flow.definition.expressions import Expression, references
from skep.flow.definition.plan import Plan, PlannedStep


class Graph:
    """Predecessors and successors of each step; indexes are those of `plan.steps`."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.names = tuple(step.name for step in plan.steps)
        self.index = {name: index for index, name in enumerate(self.names)}
        self.after = tuple(step.after for step in plan.steps)
        followers: list[list[int]] = [[] for _ in plan.steps]
        for index, after in enumerate(self.after):
            for before in after:
                followers[before].append(index)
        self.successors = tuple(map(tuple, followers))
        self.counts = tuple(map(len, self.after))
        self.bodies: dict[str, Any] = {}
        """What execution makes of fan-outs, by the name of their node."""

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def used(self) -> frozenset[str]:
        """The steps whose results something refers to, those within fan-outs included."""
        values = [value for step in self.plan.steps for value in expressions_of(step)]
        found = (references(value) for value in (*values, *self.plan.output.values()))
        return frozenset(reference.source for each in found for reference in each)


def expressions_of(step: PlannedStep) -> Iterator[Expression]:
    """Every expression of a step, and of what it fans out to."""
    yield from step.arguments.values()
    yield from (value for value in (step.on, step.when) if value is not None)
    yield from (limit.key for limit in step.limits)
    if step.wait is not None:
        yield step.wait.value
    if step.each is not None:
        yield step.each.items
        yield step.each.result
        for inner in step.each.steps:
            yield from expressions_of(inner)


def names_in(step: PlannedStep) -> frozenset[str]:
    """The names that mean something within its fan-out only; of a step without one, none."""
    if step.each is None:
        return frozenset()
    within = (names_in(inner) for inner in step.each.steps)
    return frozenset(inner.name for inner in step.each.steps).union(*within)
