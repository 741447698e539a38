"""A sub-flow's steps as steps of the flow that names it."""

from collections.abc import Callable, Mapping
from functools import partial

import msgspec

from skep.flow.definition.expressions import INPUT, Expression, Reference
from skep.flow.definition.hints import Hint
from skep.flow.definition.plan import Each, Limit, PlannedStep, Wait
from skep.flow.definition.substitution import extend, outward, substitute


class Move:
    """Renames what is within `prefix`, and puts what the caller gave in place of the input.

    `spend` is told how many bytes each use of a given value takes, before it is made.
    """

    def __init__(
        self,
        prefix: str,
        types: Mapping[str, Hint],
        given: Mapping[str, Expression],
        spend: Callable[[int], None],
    ) -> None:
        self._prefix = prefix
        self._types = types
        self._given = given
        self._spend = spend
        self._weights = {name: len(msgspec.json.encode(value)) for name, value in given.items()}

    def expression(self, value: Expression, level: int = 0) -> Expression:
        """`level`: in how many fan-outs of the sub-flow it stands."""
        return substitute(value, partial(self._replace, level))

    def step(self, step: PlannedStep, level: int = 0) -> PlannedStep:
        return msgspec.structs.replace(
            step,
            name=f"{self._prefix}.{step.name}",
            arguments={name: self.expression(value, level) for name, value in step.arguments.items()},
            on=None if step.on is None else self.expression(step.on, level),
            when=None if step.when is None else self.expression(step.when, level),
            wait=None if step.wait is None else self._wait(step.wait, level),
            each=None if step.each is None else self._each(step.each, level),
            limits=tuple(self._limit(limit, level) for limit in step.limits),
        )

    def _wait(self, wait: Wait, level: int) -> Wait:
        return msgspec.structs.replace(wait, value=self.expression(wait.value, level))

    def _limit(self, limit: Limit, level: int) -> Limit:
        return msgspec.structs.replace(limit, key=self.expression(limit.key, level))

    def _each(self, each: Each, level: int) -> Each:
        return msgspec.structs.replace(
            each,
            items=self.expression(each.items, level),
            steps=tuple(self.step(step, level + 1) for step in each.steps),
            result=self.expression(each.result, level + 1),
        )

    def _replace(self, level: int, reference: Reference) -> Expression:
        if reference.is_local:
            return reference
        if reference.source != INPUT:
            return Reference(f"{self._prefix}.{reference.source}", reference.path)
        name, *path = reference.path
        self._spend(self._weights[name])
        return outward(extend(self._given[name], tuple(path), self._types[name]), level)
