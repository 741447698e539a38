"""Plans put together: drafted steps become planned ones, sub-flows stand in place of the steps naming them.

The steps of sub-flow `disk` become `disk.create`, `disk.attach`; its `$input.x` becomes what the caller wrote
for `x`; the caller's `$disk.path` becomes what the sub-flow wrote for its output `path`.
"""

from collections.abc import Iterable

import msgspec

from skep.flow.definition.catalogue import Code
from skep.flow.definition.draft_steps import WAITS_FOR, DraftStep
from skep.flow.definition.expressions import (
    INPUT,
    Constant,
    Expression,
    Fields,
    Guarded,
    Reference,
    references,
)
from skep.flow.definition.graph import expressions_of, names_in
from skep.flow.definition.moving import Move
from skep.flow.definition.plan import Each, Flow, Limit, PlannedStep, Wait
from skep.flow.definition.substitution import both, depth, extend, substitute

LARGEST_FLOW = 100_000
"""Steps of a flow after inlining: sub-flows that double themselves are refused before they cost anything."""
LARGEST_PLAN = 128 * 1024 * 1024
"""Bytes of a stored plan, roughly: values that double themselves are refused likewise."""
_DEEPEST = 64


class TooLarge(ValueError):
    """The limit that the flow exceeds."""


class Inlining:
    """Collects planned steps; fed with drafted ones in topological order.

    Raises:
        TooLarge: beyond a limit.
        ValueError: a sub-flow's values cannot be known in time.
    """

    def __init__(self, bundle: str) -> None:
        self.steps: list[PlannedStep] = []
        self.locks: list[Expression] = []
        self.limits: list[Limit] = []
        self._bundle = bundle
        self._count = 0
        self._bytes = 0
        self._index: dict[str, int] = {}
        self._ends: dict[str, tuple[int, ...]] = {}
        """For each drafted step, what `after` it means: itself, or the last steps of the sub-flow."""
        self._outputs: dict[str, dict[str, tuple[Expression, int]]] = {}
        """Of sub-flows, with how many bytes each takes."""

    def step(self, step: DraftStep, code: Code | None) -> None:
        """One that has code, or waits; once or per item."""
        planned = self._planned(step, code)
        if step.each is not None:
            planned = self._fanned_out(step, (self._guarded(step, planned),), Reference(step.name))
        elif step.when is not None:
            planned = msgspec.structs.replace(planned, when=self.resolve(step.when))
        self._ends[step.name] = (self._add(planned, self._after(step)),)
        self._grow(2 if step.each is not None else 1)

    def flow(self, step: DraftStep, flow: Flow) -> None:
        self._grow(1 + flow.size, len(flow.content))
        given = {name: self.resolve(step.arguments.get(name, Constant(None))) for name in flow.types}
        move = Move(step.name, flow.types, given, self._spend)
        for lock in flow.plan.locks:
            self.locks.append(_early(move.expression(lock), f"a lock of sub-flow {step.flow}"))
        for limit in flow.plan.limits:
            key = _early(move.expression(limit.key), f"a limit of sub-flow {step.flow}")
            self.limits.append(msgspec.structs.replace(limit, key=key))
        if step.each is None:
            self._inline(step, flow, move)
        else:
            self._inline_per_item(step, flow, move)

    def resolve(self, value: Expression) -> Expression:
        """With references to outputs of sub-flows replaced by what those outputs are."""
        return substitute(value, self._resolve_output)

    def _inline(self, step: DraftStep, flow: Flow, move: Move) -> None:
        before, when = self._after(step), self.resolve(step.when) if step.when is not None else None
        indexes: list[int] = []
        for inner in flow.plan.steps:
            moved = move.step(inner)
            if when is not None:
                self._spend(len(msgspec.json.encode(when)))
                moved = msgspec.structs.replace(moved, when=both(when, moved.when))
            after = {indexes[index] for index in inner.after} if inner.after else set(before)
            indexes.append(self._add(moved, after))
        self._ends[step.name] = _last(flow, indexes) or tuple(before)
        outputs = {name: move.expression(value) for name, value in flow.plan.output.items()}
        self._outputs[step.name] = {name: _weighed(_given_if(when, value)) for name, value in outputs.items()}

    def _inline_per_item(self, step: DraftStep, flow: Flow, move: Move) -> None:
        body = tuple(self._guarded(step, move.step(inner)) for inner in flow.plan.steps)
        result: Expression = Fields(
            {name: move.expression(value) for name, value in flow.plan.output.items()}
        )
        if step.is_chosen_per_item and step.when is not None:
            result = Guarded(self.resolve(step.when), result)
        self._ends[step.name] = (self._add(self._fanned_out(step, body, result), self._after(step)),)

    def _guarded(self, step: DraftStep, planned: PlannedStep) -> PlannedStep:
        """A step of a fan-out, with the condition that decides for each item."""
        if step.when is None or not step.is_chosen_per_item:
            return planned
        return msgspec.structs.replace(planned, when=both(self.resolve(step.when), planned.when))

    def _fanned_out(self, step: DraftStep, body: tuple[PlannedStep, ...], result: Expression) -> PlannedStep:
        assert step.each is not None  # noqa: S101  (the caller has looked)
        when = None if step.when is None or step.is_chosen_per_item else self.resolve(step.when)
        items = self.resolve(step.each.items)
        each = Each(items, body, result, step.each.parallel, step.each.failures)
        return PlannedStep(step.name, each=each, when=when)

    def _planned(self, step: DraftStep, code: Code | None) -> PlannedStep:
        arguments = {name: self.resolve(value) for name, value in step.arguments.items()}
        wait = None
        if step.wait is not None:
            wait = Wait(step.wait, arguments[WAITS_FOR[step.wait]], step.carries)
        return PlannedStep(
            name=step.name,
            use=step.use,
            arguments={} if wait else arguments,
            on=self.resolve(step.on) if step.on is not None else None,
            retry=step.retry,
            timeout=step.timeout,
            bundle=self._bundle if code is None else code.bundle,
            wait=wait,
            limits=tuple(
                msgspec.structs.replace(limit, key=self.resolve(limit.key)) for limit in step.limits
            ),
            priority=step.priority,
        )

    def _resolve_output(self, reference: Reference) -> Expression:
        outputs = self._outputs.get(reference.source)
        if outputs is None:
            return reference
        name, *path = reference.path
        value, weight = outputs[name]
        self._spend(weight)
        return extend(value, tuple(path), object)

    def _after(self, step: DraftStep) -> set[int]:
        return {index for name in step.after for index in self._ends[name]}

    def _add(self, planned: PlannedStep, after: set[int]) -> int:
        own = names_in(planned)
        named = {
            ref.source for value in expressions_of(planned) for ref in references(value) if not ref.is_local
        }
        after = after | {self._index[name] for name in named - own - {INPUT}}
        index = self._index[planned.name] = len(self.steps)
        self.steps.append(msgspec.structs.replace(planned, after=tuple(sorted(after))))
        return index

    def _grow(self, steps: int, content: int = 0) -> None:
        self._count += steps
        if self._count > LARGEST_FLOW:
            raise TooLarge(f"{LARGEST_FLOW} steps")
        self._spend(content)

    def _spend(self, content: int) -> None:
        self._bytes += content
        if self._bytes > LARGEST_PLAN:
            raise TooLarge(f"{LARGEST_PLAN >> 20} MiB")


def _early(value: Expression, what: str) -> Expression:
    """What must be known before the first step."""
    if any(reference.source != INPUT for reference in references(value)):
        raise ValueError(f"{what} would depend on a step or an item; it is needed before the first step")
    return value


def _given_if(when: Expression | None, value: Expression) -> Expression:
    """What a sub-flow with a condition gives; the whole result of a skipped step is null anyway."""
    whole = isinstance(value, Reference) and value.source != INPUT and not value.path
    return value if when is None or whole else Guarded(when, value)


def _weighed(value: Expression) -> tuple[Expression, int]:
    if depth(value) > _DEEPEST:
        raise ValueError(f"an output of the sub-flow is nested deeper than {_DEEPEST} levels")
    return value, len(msgspec.json.encode(value))


def _last(flow: Flow, indexes: Iterable[int]) -> tuple[int, ...]:
    followed = {index for inner in flow.plan.steps for index in inner.after}
    return tuple(moved for index, moved in enumerate(indexes) if index not in followed)
