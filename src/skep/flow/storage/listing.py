"""The steps of a run in the order people read them: as in the plan, items of a fan-out after it."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import Struct

from skep.flow.definition.plan import Plan, PlannedStep

_ITEM = re.compile(r"\[(\d+)\]")


class Entry(Struct, frozen=True):
    """One step; `after` are the names of those that it waits for, within its item if it belongs to one."""

    name: str
    use: str
    after: tuple[str, ...]


def entries(plan: Plan, names: Iterable[str]) -> Sequence[Entry]:
    """All steps of the plan, and those of the names that belong to items: `roll[3].create`."""
    items: dict[str, list[str]] = defaultdict(list)
    for name in names:
        node, bracket, _ = name.partition("[")
        if bracket:
            items[node].append(name)
    return [*_listed(plan.steps, items)]


def _listed(steps: Sequence[PlannedStep], items: Mapping[str, list[str]]) -> Iterator[Entry]:
    for step in steps:
        yield Entry(step.name, step.use or _repeated(step), tuple(steps[index].name for index in step.after))
        if step.each is not None and step.name in items:
            bodies = {body: (owner, place) for owner, place, body in _bodies(step)}
            order = {body: number for number, body in enumerate(bodies)}
            for name in sorted(items[step.name], key=lambda name: _place(name, order)):
                yield _of_item(name, bodies)


def _repeated(step: PlannedStep) -> str:
    """The code that a fan-out over one step repeats."""
    return step.each.steps[0].use if step.each is not None and step.each.steps[0].name == step.name else ""


Body = tuple[str, bool]
"""A step's name without numbers of items, and whether it is an item itself: `roll[3]`, not `roll[3].x`."""


def _bodies(node: PlannedStep) -> Iterator[tuple[PlannedStep, int, Body]]:
    """Every step that the items of the node consist of: the node it belongs to, its place there."""
    assert node.each is not None  # noqa: S101  (only fan-outs are asked)
    for place, step in enumerate(node.each.steps):
        yield node, place, (step.name, step.name == node.name)
        if step.each is not None:
            yield from _bodies(step)


def _body_of(name: str) -> Body:
    return _ITEM.sub("", name), name.endswith("]")


def _place(name: str, order: Mapping[Body, int]) -> tuple[list[int], int]:
    """By the numbers of the items, then as in the plan."""
    return [int(number) for number in _ITEM.findall(name)], order.get(_body_of(name), 0)


def _of_item(name: str, bodies: Mapping[Body, tuple[PlannedStep, int]]) -> Entry:
    found = bodies.get(_body_of(name))
    if found is None:
        return Entry(name, "", ())
    node, place = found
    assert node.each is not None  # noqa: S101  (it has bodies)
    siblings, suffix = node.each.steps, node.each.steps[place].name[len(node.name) :]
    item = name.removesuffix(suffix) if suffix else name
    after = tuple(item + siblings[index].name[len(node.name) :] for index in siblings[place].after)
    step = siblings[place]
    return Entry(name, step.use or _repeated(step), after)
