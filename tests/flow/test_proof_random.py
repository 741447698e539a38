"""Random flows × random failures × random deaths × disturbed deliveries: complete, or as if never started.

What must come out is worked out from the document alone, by a few rules that know nothing of the engine.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tests.flow import stock
from tests.flow.stock import Stock

from skep.flow import Choice, Database, FlowEngine, RunId, RunState, StepRecord
from skep.flow.execution.caller import at_once
from skep.flow.testing import Deliveries, Failing, InStep, Trial, VirtualTime
from skep.flow.testing.injection import Around, both, untouched
from skep.flow.testing.trial import Death, Meddler

PART = """
flow: part
input: {text: str}
steps:
  x: {use: put, with: {text: $input.text}}
  y: {use: enter, with: {text: $x}}
  z: {use: put, after: [x]}
"""
PART_KINDS = {"x": "put", "y": "enter", "z": "put"}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Tracebacks of injected failures are no news, and take longer than the trials."""
    with capture_logs():
        yield


@dataclass(frozen=True)
class Node:
    """One step of a document, and what it comes to."""

    name: str
    what: str
    """put, enter, launch; part (a sub-flow); nap, ask (waits)."""
    after: tuple[str, ...]
    when: bool | None
    """None: always."""
    items: int | None
    """None: no fan-out."""
    parallel: int | None
    tolerated: int

    @property
    def line(self) -> str:
        body = {
            "part": "flow: part, with: {text: t}",
            "nap": "wait: for, with: {duration: 90m}",
            "ask": "wait: approval, with: {message: 'Well?'}, timeout: 24h",
        }.get(self.what, f"use: {self.what}")
        if self.when is not None:
            body += f", when: $input.{'yes' if self.when else 'no'}"
        if self.items is not None:
            body += f", each: $input.items{self.items}, failures: {self.tolerated}"
            body += f", parallel: {self.parallel}" if self.parallel else ""
        return f"  {self.name}: {{{body}, after: [{', '.join(self.after)}]}}"

    @property
    def groups(self) -> list[dict[str, str]]:
        """For each item (one if there is no fan-out) the names of its steps and what they use."""
        if self.when is False or self.what in ("nap", "ask"):
            return []
        names = [self.name] if self.items is None else [f"{self.name}[{n}]" for n in range(self.items)]
        if self.what == "part":
            return [{f"{name}.{step}": use for step, use in PART_KINDS.items()} for name in names]
        return [{name: self.what} for name in names]


@dataclass(frozen=True)
class Story:
    """A flow, and everything that happens to it."""

    nodes: tuple[Node, ...]
    failures: tuple[tuple[str, bool], ...]
    """Steps that fail, and whether after their effect."""
    undo_failures: tuple[tuple[str, bool, int], ...]
    deaths: tuple[Death, ...]
    seed: int | None
    """Of disturbed deliveries."""
    meddling: tuple[str, int] | None
    """pause or cancel, and the point at which."""

    @property
    def document(self) -> str:
        inputs = "yes: bool, no: bool, items0: 'list[int]', items1: 'list[int]', items3: 'list[int]'"
        return f"flow: story\ninput: {{{inputs}}}\nsteps:\n" + "\n".join(node.line for node in self.nodes)

    @property
    def steps(self) -> dict[str, str]:
        return {name: use for node in self.nodes for group in node.groups for name, use in group.items()}

    @property
    def doubtful(self) -> bool:
        """Somebody may have to be asked whether an at-most-once step had its effect."""
        return "launch" in self.steps.values() and bool(self.deaths or self.seed is not None)

    @property
    def survivors(self) -> set[str] | None:
        """The steps whose effects are there when the run ends by itself; None: it fails."""
        failing, found = {name for name, _ in self.failures}, set[str]()
        for node in self.nodes:
            failed = [group for group in node.groups if failing & group.keys()]
            if len(failed) > node.tolerated:
                return None
            found |= {name for group in node.groups if group not in failed for name in group}
        return found


@st.composite
def nodes(draw: st.DrawFn) -> tuple[Node, ...]:
    made: list[Node] = []
    for number in range(draw(st.integers(1, 6))):
        what = draw(st.sampled_from(["put", "enter", "launch", "part", "part", "nap", "ask"]))
        names = [node.name for node in made]
        items = draw(st.sampled_from([None, None, 0, 1, 3])) if what not in ("nap", "ask") else None
        made.append(
            Node(
                f"s{number}",
                what,
                tuple(draw(st.lists(st.sampled_from(names), unique=True, max_size=3))) if names else (),
                draw(st.sampled_from([None, None, True, False])),
                items,
                draw(st.sampled_from([None, 1, 2])) if items else None,
                draw(st.integers(0, 2)) if items else 0,
            )
        )
    return tuple(made)


@st.composite
def stories(draw: st.DrawFn) -> Story:
    made = draw(nodes())
    names = list(Story(made, (), (), (), None, None).steps)
    some = st.sampled_from(names) if names else st.nothing()
    flags, empty = st.booleans(), not names
    in_steps = st.builds(InStep, some, flags, flags)
    return Story(
        made,
        tuple(draw(st.lists(st.tuples(some, flags), max_size=0 if empty else 2))),
        tuple(draw(st.lists(st.tuples(some, flags, st.sampled_from([1, 5])), max_size=0 if empty else 2))),
        tuple(draw(st.lists(st.one_of(st.integers(0, 30), *([] if empty else [in_steps])), max_size=3))),
        draw(st.one_of(st.none(), st.integers(0, 1000))),
        draw(st.one_of(st.none(), st.tuples(st.sampled_from(["pause", "cancel"]), st.integers(2, 30)))),
    )


INPUT = {"yes": True, "no": False, "items0": [], "items1": [0], "items3": [0, 1, 2]}


def plain(name: str, what: str, *after: str, when: bool | None = None, items: int | None = None) -> Node:
    return Node(name, what, after, when, items, None, 0)


SKIPPED_AND_UNDONE = Story(
    (plain("s0", "part", when=False), plain("s1", "put", "s0")), (("s1", False),), (), (), None, None
)
EMPTY_FANOUT_TAKEN_OVER = Story(
    (plain("s0", "enter", items=0), plain("s1", "part"), plain("s2", "put", "s0", "s1")),
    (),
    (),
    (InStep("s1.y"),),
    None,
    None,
)


@example(story=SKIPPED_AND_UNDONE)
@example(story=EMPTY_FANOUT_TAKEN_OVER)
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(story=stories())
def test_any_story_ends_complete_or_as_if_never_begun(
    story: Story, tmp_path_factory: pytest.TempPathFactory
) -> None:
    VirtualTime().run(tell(story, tmp_path_factory.mktemp("story")))


async def tell(story: Story, folder: Path) -> None:
    registry, world = stock.registry(), Stock()
    registry.add_flow(PART, "part.yaml")
    flow = registry.parse(story.document, "story.yaml")

    def operator(step: StepRecord) -> Choice:
        """An undo that failed too often is tried again; what is in doubt is cleared away."""
        if "undo failed" in step.message:
            return "retry"
        world.clear_away(step.name)
        return "mark-undone"

    trial = Trial(
        registry,
        flow,
        INPUT,
        world,
        folder / "flow.db",
        around=around(story),
        crashes=story.deaths,
        operator=operator,
        dispatch=at_once if story.seed is None else Deliveries(story.seed),
        meddler=meddler(story),
        meddle_at=story.meddling[1] if story.meddling else 0,
        timeout=1e7,
    )
    record = await trial.run()
    effects = await remaining(world, trial.url)

    judge(story, record.state, effects)
    assert all(count == 1 for count in world.launches.values())
    assert all(len(keys) == 1 for keys in world.keys.values())
    assert not world.overlaps


def judge(story: Story, state: RunState, effects: set[str]) -> None:
    if state is RunState.SUCCEEDED:
        survivors = story.survivors
        assert survivors is not None
        assert effects == survivors or (story.doubtful and effects < survivors)
    else:
        assert effects == set()
        if state is RunState.CANCELLED:
            assert story.meddling is not None
            assert story.meddling[0] == "cancel"
        else:
            assert story.survivors is None or story.doubtful


def around(story: Story) -> Around:
    found: Around = untouched
    for name, late in story.failures:
        found = both(found, Failing(name, after_its_effect=late))
    for name, late, times in story.undo_failures:
        found = both(found, Failing(name, after_its_effect=late, times=times, undo=True))
    return found


def meddler(story: Story) -> Meddler | None:
    if story.meddling is None:
        return None

    async def meddle(engine: FlowEngine, run: RunId) -> None:
        assert story.meddling is not None
        if story.meddling[0] == "cancel":
            await engine.cancel(run, by="trial")
        else:
            await engine.pause(run, by="trial")
            await engine.resume(run, by="trial")

    return meddle


async def remaining(world: Stock, url: str) -> set[str]:
    database = await Database.open(url, durable=False)
    await world.attach(database)
    found = await world.effects()
    await database.close()
    return found
