"""The shape of a plan by index, shared by all its runs."""

from functools import cached_property
from typing import Any

from skep.flow.definition.expressions import Reference, references
from skep.flow.definition.plan import Plan


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
        """The steps whose results something refers to."""
        values = [value for step in self.plan.steps for value in (*step.arguments.values(), step.on)]
        found = (references(value) for value in (*values, *self.plan.output.values()) if value is not None)
        return frozenset(
            reference.source for each in found for reference in each if isinstance(reference, Reference)
        )
