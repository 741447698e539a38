"""The laws hold for our own steps, and each finds the flows that break it."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.flow import workshop
from tests.flow.workshop import Workshop

from skep.flow import Context, Database, Registry, step
from skep.flow.testing import LawBroken, Trials, VirtualTime, laws, prove, worlds_of

MIXED = """
flow: mixed
steps:
  a: {use: w.make, with: {name: a}}
  b: {use: w.enlist, with: {name: b}, after: [a]}
  c: {use: w.make, with: {name: c}, after: [a]}
  d: {flow: inner, with: {name: d}, after: [b, c]}
"""
INNER = """
flow: inner
input: {name: str}
steps:
  x: {use: w.enlist, with: {name: $input.name}}
  y: {use: w.make, with: {name: y$input.name}}
"""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Tracebacks of injected failures are no news, and take longer than the trials."""
    with capture_logs():
        yield


def make_registry() -> Registry:
    registry = workshop.registry()
    registry.add_flow(INNER, "inner.yaml")
    registry.add_flow(MIXED, "mixed.yaml")
    return registry


test_a_flow_of_mixed_steps = prove("mixed", {}, registry=make_registry, world=Workshop, every=4)


TWO_STEPS = """
flow: f
steps:
  a: {use: USE, with: {name: a}}
  b: {use: put, with: {name: b}, after: [a]}
"""


class Shelf:
    """A world of things and how many there are of each."""

    def __init__(self) -> None:
        self.things: Counter[str] = Counter()

    async def attach(self, database: Database) -> None:
        """It has no tables."""

    def environment(self, _route: str) -> "Shelf":
        return self

    async def snapshot(self) -> object:
        return sorted((thing, count) for thing, count in self.things.items() if count)


@step
async def put(cx: Context[Shelf], name: str) -> None:
    cx.env.things[name] = 1


@put.undo
async def take(cx: Context[Shelf], name: str) -> None:
    del cx.env.things[name]


@step
async def put_for_good(cx: Context[Shelf], name: str) -> None:
    cx.env.things[name] = 1


@step
async def put_one_more(cx: Context[Shelf], name: str) -> None:
    cx.env.things[name] += 1


@put_one_more.undo
async def take_all(cx: Context[Shelf], name: str) -> None:
    del cx.env.things[name]


@step
async def put_strictly(cx: Context[Shelf], name: str) -> None:
    cx.env.things[name] = 1


@put_strictly.undo
async def take_strictly(cx: Context[Shelf], name: str) -> None:
    if not cx.env.things[name]:
        raise LookupError(f"there is no {name}")
    del cx.env.things[name]


@step
async def put_to_be_counted(cx: Context[Shelf], name: str) -> None:
    cx.env.things[name] = 1


@put_to_be_counted.undo
async def take_one(cx: Context[Shelf], name: str) -> None:
    cx.env.things[name] -= 1


def trials_of(use: str, folder: Path) -> Trials:
    registry = Registry()
    for each in (put, put_for_good, put_one_more, put_strictly, put_to_be_counted):
        registry.add_step(each, each.name)
    registry.add_flow(TWO_STEPS.replace("USE", use), "f.yaml")
    return Trials(registry, "f", {}, worlds_of(Shelf), folder, timeout=1e6)


@pytest.mark.parametrize(
    ("law", "use", "said"),
    [
        ("fail anywhere", "put_for_good", "a failed after its effect"),
        ("fail anywhere", "put_strictly", "the run needs an operator: a: undo failed"),
        ("repeat anywhere", "put_one_more", "every do was called twice"),
        ("repeat anywhere", "put_strictly", "every undo was called twice: the run needs an operator"),
        ("crash anywhere", "put_one_more", r"died at point \d+ of \d+"),
        ("crash in steps", "put_one_more", "died after the effect of a"),
        ("crash twice", "put_one_more", r"died at point \d+ of \d+, then at point \d+"),
        ("fail while undoing", "put_to_be_counted", "the undo of a failed after its effect, 1 times"),
        ("cancel anywhere", "put_for_good", r"cancelled at point \d+ of \d+"),
    ],
)
def test_a_flow_that_breaks_a_law_is_found(law: str, use: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(LawBroken, match=said):
        VirtualTime().run(check(law, trials_of(use, tmp_path)))


async def check(law: str, trials: Trials) -> int:
    return await laws.ALL[law](trials)
