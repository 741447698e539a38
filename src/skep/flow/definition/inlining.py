"""Sub-flows put in place of the steps that name them, when the document is loaded.

The steps of sub-flow `disk` become `disk.create`, `disk.attach`; its `$input.x` becomes what the caller wrote
for `x`; the caller's `$disk.path` becomes what the sub-flow wrote for its output `path`.
"""

import msgspec

from skep.flow.definition.draft import DraftStep
from skep.flow.definition.expressions import (
    INPUT,
    Constant,
    Expression,
    Fields,
    Path,
    Reference,
    follow,
    references,
    substitute,
)
from skep.flow.definition.plan import Flow, PlannedStep, RetryPolicy


class Inlining:
    """Collects planned steps; fed with drafted ones in topological order."""

    def __init__(self) -> None:
        self.steps: list[PlannedStep] = []
        self.locks: list[Expression] = []
        self._index: dict[str, int] = {}
        self._ends: dict[str, tuple[int, ...]] = {}
        """For each drafted step, what `after` it means: itself, or the last steps of the sub-flow."""
        self._outputs: dict[str, dict[str, Expression]] = {}

    def step(self, step: DraftStep) -> None:
        arguments = {name: self.resolve(value) for name, value in step.arguments.items()}
        on = self.resolve(step.on) if step.on is not None else None
        retry = None if step.retry is None else RetryPolicy(step.retry)
        planned = PlannedStep(step.name, step.use, arguments, (), on, retry, step.timeout)
        self._ends[step.name] = (self._add(planned, self._after(step)),)

    def flow(self, step: DraftStep, flow: Flow) -> None:
        """Raises ValueError: a lock of the sub-flow would depend on a step's result."""
        missing: dict[str, Expression] = {name: Constant(None) for name in flow.types}
        given = missing | {name: self.resolve(value) for name, value in step.arguments.items()}

        def replace(reference: Reference) -> Expression:
            if reference.source != INPUT:
                return Reference(f"{step.name}.{reference.source}", reference.path)
            name, *path = reference.path
            return _extend(given[name], tuple(path), flow.types[name])

        before = self._after(step)
        indexes: list[int] = []
        for inner in flow.plan.steps:
            moved = msgspec.structs.replace(
                inner,
                name=f"{step.name}.{inner.name}",
                arguments={name: substitute(value, replace) for name, value in inner.arguments.items()},
                on=substitute(inner.on, replace) if inner.on is not None else None,
            )
            after = {indexes[index] for index in inner.after} if inner.after else set(before)
            indexes.append(self._add(moved, after))
        self._ends[step.name] = _last(flow, indexes) or tuple(before)
        self._outputs[step.name] = {
            name: substitute(value, replace) for name, value in flow.plan.output.items()
        }
        for lock in flow.plan.locks:
            self._lock(substitute(lock, replace), step.flow)

    def resolve(self, value: Expression) -> Expression:
        """With references to outputs of sub-flows replaced by what those outputs are."""
        return substitute(value, self._resolve_output)

    def _resolve_output(self, reference: Reference) -> Expression:
        outputs = self._outputs.get(reference.source)
        if outputs is None:
            return reference
        name, *path = reference.path
        return _extend(outputs[name], tuple(path), object)

    def _after(self, step: DraftStep) -> set[int]:
        return {index for name in step.after for index in self._ends[name]}

    def _add(self, planned: PlannedStep, after: set[int]) -> int:
        values = (*planned.arguments.values(), *([planned.on] if planned.on is not None else []))
        named = {ref.source for value in values for ref in references(value)} - {INPUT}
        after = after | {self._index[name] for name in named}
        index = self._index[planned.name] = len(self.steps)
        self.steps.append(msgspec.structs.replace(planned, after=tuple(sorted(after))))
        return index

    def _lock(self, lock: Expression, flow: str) -> None:
        if any(reference.source != INPUT for reference in references(lock)):
            raise ValueError(
                f"a lock of sub-flow {flow} would depend on a step; locks are taken before the first step"
            )
        self.locks.append(lock)


def _last(flow: Flow, indexes: list[int]) -> tuple[int, ...]:
    followed = {index for inner in flow.plan.steps for index in inner.after}
    return tuple(moved for index, moved in enumerate(indexes) if index not in followed)


def _extend(value: Expression, path: Path, hint: object) -> Expression:
    """The field at `path` of what the expression will be."""
    if not path:
        return value
    match value:
        case Reference(source, beginning):
            return Reference(source, (*beginning, *path))
        case Fields(fields) if path[0] in fields:
            return _extend(fields[path[0]], path[1:], object)
        case Constant(constant):
            return Constant(msgspec.to_builtins(follow(msgspec.convert(constant, hint), path)))
    raise ValueError(
        f"{'.'.join(path)} cannot be taken from a text or a list, nor from a field left to its default"
    )
