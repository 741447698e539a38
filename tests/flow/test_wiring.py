"""What a document may say, and what is said about one that is wrong."""

from pathlib import Path
from typing import Any, NewType

import pytest
from tests.flow import workshop
from tests.flow.workshop import Count, Name, Workshop

from skep.flow import FlowError, Registry, StepError, step
from skep.flow.definition.comparisons import mapping
from skep.flow.definition.expressions import Constant
from skep.flow.definition.hints import fits
from skep.flow.steps import Context

GOLDEN = Path(__file__).with_name("wrong")


@pytest.mark.parametrize("case", sorted(GOLDEN.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_wrong_document_is_refused_with_every_fault_and_its_line(case: Path) -> None:
    registry = workshop.registry()
    for part in ("part.yml", "nothing.yml"):
        registry.add_flow((GOLDEN / part).read_text(), part)

    with pytest.raises(FlowError) as caught:
        registry.add_flow(case.read_text(), case.name)

    assert str(caught.value).splitlines() == case.with_suffix(".txt").read_text().splitlines()


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (str, str),
        (Name, str),
        (Name, Name | None),
        (str, str | int),
        (int, float),
        (Count, float),
        (list[Name], list[str]),
        (tuple[Name, Name], tuple[str, ...]),
        (tuple[int, Name], tuple[float, str]),
        (dict[str, Name], dict[str, str | None]),
        (None, str | None),
        (workshop.Place, object),
        (mapping({"host": str, "port": Count}), dict[str, str | int]),
        (mapping({"host": Name}), mapping({"host": str})),
        (mapping({"host": Name, "port": int}), mapping({"host": str, "port": float})),
    ],
)
def test_fits(source: Any, target: Any) -> None:
    assert fits(source, target)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (str, Name),
        (str | None, str),
        (float, int),
        (bool, int),
        (Name, NewType("Other", str)),
        (list[str], list[Name]),
        (tuple[int, ...], tuple[int, int]),
        (dict[str, str], dict[str, int]),
        (object, str),
        (workshop.Place, str),
        (mapping({"host": str, "port": int}), dict[str, str]),
        (mapping({"host": str}), mapping({"host": str, "port": int})),
        (mapping({"host": str}), workshop.Place),
        (dict[str, str], mapping({"host": str})),
    ],
)
def test_does_not_fit(source: Any, target: Any) -> None:
    assert not fits(source, target)


def test_a_sub_flow_becomes_steps_of_the_flow_that_names_it() -> None:
    registry = workshop.registry()
    registry.add_flow((GOLDEN / "part.yml").read_text(), "part.yml")

    flow = registry.add_flow(
        """
flow: whole
lock: [whole]
steps:
  first: {use: w.make, with: {name: first}}
  sub: {flow: part, with: {name: "n-$first", spare: null}, after: [first]}
  last: {use: w.make, with: {name: $sub.host}, after: [sub]}
output: {name: $sub.place.name}
""",
        "whole.yaml",
    )
    steps = {planned.name: planned for planned in flow.plan.steps}
    after = {name: {flow.plan.steps[i].name for i in planned.after} for name, planned in steps.items()}

    assert after == {
        "first": set(),
        "sub.place": {"first"},
        "sub.visit": {"sub.place", "first"},
        "sub.other": {"first"},
        "last": {"sub.place", "sub.visit", "sub.other"},
    }
    assert flow.plan.locks == (Constant("whole"), Constant("part/lock"))
    assert flow.outputs["name"] is Name


def test_flows_of_a_package_may_name_each_other_in_any_order() -> None:
    registry = workshop.registry()

    registry.add_flows("tests.flow.documents")

    assert registry.flow("a.outer").plan.steps[0].name == "inner.make"


def test_sub_flows_that_double_themselves_are_refused() -> None:
    registry = workshop.registry()
    registry.add_flow("flow: f0\nsteps: {a: {use: w.make, with: {name: a}}}\n", "f0.yaml")

    def add(level: int) -> None:
        body = "".join(f"  s{n}: {{flow: f{level - 1}}}\n" for n in range(50))
        registry.add_flow(f"flow: f{level}\nsteps:\n{body}", f"f{level}.yaml")

    add(1)
    add(2)
    with pytest.raises(FlowError, match="more than 100000 steps"):
        add(3)


def test_the_same_document_has_the_same_hash() -> None:
    text = "flow: f\nsteps: {a: {use: w.make, with: {name: a}}}\n"

    assert workshop.registry().parse(text, "x").hash == workshop.registry().parse(text, "y").hash
    assert workshop.registry().parse(text.replace("name: a", "name: b"), "x").hash != (
        workshop.registry().parse(text, "x").hash
    )


def test_a_step_that_cannot_be_checked_is_refused() -> None:
    async def untyped(cx: Context[Workshop], name) -> None: ...  # type: ignore[no-untyped-def]
    async def unstorable(cx: Context[Workshop]) -> Registry: ...  # type: ignore[empty-body]
    async def nameless(cx: Context[Workshop], *names: str) -> None: ...
    async def fine(cx: Context[Workshop], name: str) -> None: ...
    async def other(cx: Context[Workshop], title: str) -> None: ...

    for function, reason in ((untyped, "'name' a type"), (nameless, "by name")):
        with pytest.raises(StepError, match=reason):
            Registry().add_step(step(function), "s")
    undone = step(fine)
    undone.undo(other)  # type: ignore[arg-type]
    with pytest.raises(StepError, match="same parameters"):
        Registry().add_step(undone, "s")
    with pytest.raises(ValueError, match="at-most-once"):
        step(kind="at-most-once", retry=1)(fine)
    with pytest.raises(TypeError, match="async"):
        step(lambda cx: None)  # type: ignore[arg-type, return-value]
