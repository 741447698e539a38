"""Flows for the eye: the golden files in `pictures/` are what a person sees."""

import re
import xml.etree.ElementTree as Xml
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.flow import workshop

from skep.flow import Flow
from skep.flow.definition import picture
from skep.flow.definition.layout import Box, lay_out
from skep.flow.definition.writing import span

GOLDEN = Path(__file__).with_name("pictures")
STATES = {
    "check": "succeeded",
    "ok": "succeeded",
    "paid": "waiting",
    "later": "running",
    "roll": "running",
    "roll[0].drain": "succeeded",
    "roll[1].drain": "failed",
    "roll[10].swap": "succeeded",
    "note": "skipped",
}
TOOK = {"check": 1.234, "roll[0].drain": 61, "roll[1].drain": 5}


@pytest.fixture
def fleet() -> Flow:
    registry = workshop.registry()
    registry.add_documents({path.name: path.read_text() for path in sorted(GOLDEN.glob("*.yaml"))})
    return registry.flow("deploy.fleet")


@pytest.mark.parametrize("ending", ["mmd", "svg", "txt", "run.mmd", "run.svg"])
def test_a_flow_looks_as_it_did(fleet: Flow, ending: str) -> None:
    run = ending.startswith("run.")
    states, took = (STATES, TOOK) if run else (None, None)

    drawn = {
        "mmd": lambda: picture.mermaid(fleet.plan, states=states, took=took),
        "svg": lambda: picture.svg(fleet.plan, states=states, took=took),
        "txt": lambda: picture.describe(fleet.plan),
    }[ending.rpartition(".")[2]]()

    assert drawn == (GOLDEN / f"fleet.{ending}").read_text()


def test_a_picture_is_well_formed_whatever_the_flow_says() -> None:
    text = "flow: f\nsteps:\n  a: {wait: approval, with: {message: '</svg><script>\"&]]> |x| [y] `z`'}}\n"
    plan = workshop.registry().parse(text, "f.yaml").plan

    root = Xml.fromstring(picture.svg(plan, states={"a": '"><x'}))

    assert not list(root.iter("{http://www.w3.org/2000/svg}script"))
    assert re.search(r'n0\(\["a<br/>[^"<>`\[\]|]*"\]\)', picture.mermaid(plan, states={"a": '"><x'}))


def test_what_nobody_could_see_is_not_drawn() -> None:
    steps = "".join(f"  s{n}: {{use: w.make, with: {{name: x}}}}\n" for n in range(2001))
    plan = workshop.registry().parse(f"flow: f\nsteps:\n{steps}", "f.yaml").plan

    with pytest.raises(ValueError, match="2001 steps; at most 2000 can be drawn"):
        picture.svg(plan)


def touch(one: Box, other: Box) -> bool:
    return (
        one.x < other.x + other.width
        and other.x < one.x + one.width
        and one.y < other.y + other.height - 0.001
        and other.y < one.y + one.height - 0.001
    )


@given(
    st.integers(1, 14).flatmap(
        lambda n: st.tuples(st.just(n), st.sets(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1))))
    )
)
def test_no_node_covers_another_and_every_edge_goes_to_the_right(
    graph: tuple[int, set[tuple[int, int]]],
) -> None:
    count, pairs = graph
    edges = sorted((a, b) for a, b in pairs if a < b)

    layout = lay_out([(40.0 + n, 20.0 + 3 * n) for n in range(count)], edges)

    boxes = layout.boxes
    assert not any(touch(boxes[a], boxes[b]) for a in range(count) for b in range(a))
    assert all(box.x >= 0 and box.y >= -0.001 for box in boxes)
    assert all(boxes[a].x + boxes[a].width < boxes[b].x for a, b in edges)
    assert all([x for x, _ in route] == sorted(x for x, _ in route) for route in layout.routes)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0125, "12.5ms"), (1.234, "1.23s"), (60, "1m"), (61, "61s"), (7200, "2h"), (86400, "1d"), (90, "90s")],
)
def test_spans_of_time_are_written_short(seconds: float, text: str) -> None:
    assert span(seconds) == text
