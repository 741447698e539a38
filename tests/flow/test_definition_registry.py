"""Registries in layers, and plans joined with the code they are pinned to."""

import msgspec
import pytest
from tests.flow import workshop
from tests.flow.workshop import Place, Workshop

from skep.flow import FlowError, Registry, step
from skep.flow.definition.plan import Plan, PlannedStep
from skep.flow.errors import Unloadable
from skep.flow.steps import Context

FLOW = """
flow: f
input: {place: Place, colour: Colour}
steps:
  old: {use: w.make, with: {name: a}}
  new: {use: paint, with: {colour: $input.colour}}
  each: {use: paint, each: [$input.colour], with: {colour: $item}}
  told: {wait: signal, with: {name: told}, as: Shade}
"""


class Colour(msgspec.Struct, frozen=True):
    name: str


class Shade(msgspec.Struct, frozen=True):
    depth: int


@step(name="paint")
async def paint(cx: Context[Workshop], colour: Colour) -> None: ...


@step(name="paint")
async def paint_again(cx: Context[Workshop], colour: Colour) -> None: ...


def layered(bundle: str = "b1", base: Registry | None = None) -> Registry:
    registry = Registry(base or workshop.registry(), bundle)
    registry.add_step(paint if bundle == "b1" else paint_again, "paint")
    registry.add_type(Colour, Shade)
    return registry


def parse(registry: Registry) -> Plan:
    return registry.parse(FLOW, "f.yaml").plan


def test_what_is_not_here_is_looked_for_in_the_parent() -> None:
    base = workshop.registry()
    registry = layered(base=base)
    base.add_flow("flow: base\nsteps: {a: {use: w.make, with: {name: a}}}\n", "base.yaml")
    registry.add_flow("flow: own\nsteps: {sub: {flow: base}}\n", "own.yaml")

    assert registry.flows() == ["base", "own"]
    assert [step.name for step in registry.flow("own").plan.steps] == ["sub.a"]
    assert "paint" not in base.steps


def test_a_plan_remembers_the_bundle_of_each_of_its_steps() -> None:
    plan = parse(layered())

    pinned = {step.name: step.bundle for step in plan.steps}

    assert plan.bundle == "b1"
    assert {name: pinned[name] for name in ("old", "new", "told")} == {"old": "", "new": "b1", "told": "b1"}
    [each] = [step.each for step in plan.steps if step.each is not None]
    assert each.steps[0].bundle == "b1"


def test_a_plan_is_carried_out_by_the_code_it_is_pinned_to() -> None:
    first = layered("b1")
    second = Registry(first, "b2")
    second.steps["paint"] = layered("b2").steps["paint"]
    second.add_type(Colour, Shade)

    old, new = second.bind(parse(first)), second.bind(parse(second))

    assert [bound.code(find(bound.graph.plan, "new")).step for bound in (old, new)] == [paint, paint_again]
    assert old.code(find(old.graph.plan, "old")).bundle == ""


def find(plan: Plan, name: str) -> PlannedStep:
    return next(step for step in plan.steps if step.name == name)


def test_a_plan_whose_code_is_gone_says_all_that_it_lacks() -> None:
    content = layered().parse(FLOW, "f.yaml").content

    with pytest.raises(Unloadable) as caught:
        workshop.registry().load(content)

    assert str(caught.value) == (
        "flow f: step paint of bundle b1 no longer exists; the types of bundle b1 no longer exist"
    )


def test_a_plan_of_another_bundle_is_not_carried_out_by_a_step_of_the_same_name() -> None:
    with pytest.raises(Unloadable, match="step paint of bundle b1"):
        layered("b2").bind(parse(layered("b1")))


def test_a_signal_is_read_as_the_type_its_step_names() -> None:
    bound = layered().bind(parse(layered()))
    decode = bound.signal_decoder(find(bound.graph.plan, "told"))

    assert decode(b'{"depth": 3}') == Shade(3)
    with pytest.raises(msgspec.DecodeError):
        decode(b'{"depth": "much"}')


def test_a_stored_flow_takes_what_it_took() -> None:
    registry = layered()
    flow = registry.parse(FLOW, "f.yaml")

    stored = registry.stored_flow(flow.content)

    assert stored.plan == flow.plan
    assert stored.hash == flow.hash
    assert stored.types == {"place": Place, "colour": Colour}


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"flow": 3}', b"[" * 100_000])
def test_a_stored_flow_that_is_damaged_is_unloadable(content: bytes) -> None:
    with pytest.raises(Unloadable, match="cannot be read"):
        workshop.registry().load(content)


def test_an_input_that_cannot_be_told_from_json_is_refused() -> None:
    with pytest.raises(FlowError, match=r"'Place \| Colour' cannot be told from JSON"):
        layered().parse("flow: f\ninput: {shop: Place | Colour}\n", "x.yaml")
