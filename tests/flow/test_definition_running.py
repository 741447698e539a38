"""What documents say, carried out: sub-flows with conditions, fan-outs that choose, and fan-outs of waits."""

import asyncio

import pytest
from tests.flow.workshop import Workshop

from skep.flow import FlowEngine, Registry, RunState, StepState

pytestmark = pytest.mark.sqlite

PART = """
flow: part
input: {name: str, spare: str | None}
steps:
  place: {use: w.place, with: {name: p}}
  make: {use: w.make, with: {name: $input.name}, on: $place.host, limit: {"make/$input.name": 1}}
  spare: {use: w.make, with: {name: "spare-$input.spare"}, when: $input.spare != None}
output: {text: "made $make", host: $place.host, spare: $spare, all: {name: $make}}
"""

MAYBE = """
flow: maybe
input: {name: str | None}
steps:
  sub: {flow: part, with: {name: $input.name, spare: s}, when: $input.name != None}
  last: {use: w.make, with: {name: "on $sub.host"}, when: $sub.host != None and $sub.host == 'host1'}
output: {text: $sub.text, host: $sub.host, spare: $sub.spare, all: $sub.all, last: $last}
"""

CHOOSING = """
flow: choosing
input: {places: "list[Place]"}
steps:
  some: {flow: part, each: $input.places, with: {name: $item.host}, when: $item.port > 1 and $index != 3}
  ones: {use: w.make, each: $input.places, with: {name: "$item.name-$index"}, when: $item.port <= 1}
output: {some: $some, ones: $ones}
"""

ASKING = """
flow: asking
input: {people: "list[str]"}
steps:
  ask: {wait: approval, each: $input.people, with: {message: "What does $item say?"}}
  told: {wait: signal, each: $input.people, with: {name: "told-$item"}, as: Place, after: [ask]}
output: {ask: $ask, told: $told}
"""


@pytest.fixture
def parts(registry: Registry) -> Registry:
    registry.add_flow(PART, "part.yaml")
    return registry


@pytest.mark.usefixtures("parts")
async def test_a_sub_flow_whose_condition_holds_is_carried_out(engine: FlowEngine, shop: Workshop) -> None:
    run = await engine.start(engine.parse(MAYBE), {"name": "n"})

    record = await engine.wait(run, 10)

    assert record.output == {
        "text": "made n",
        "host": "host1",
        "spare": "spare-s",
        "all": {"name": "n"},
        "last": "on host1",
    }
    assert "n" in shop.made


@pytest.mark.usefixtures("parts")
async def test_a_sub_flow_whose_condition_does_not_hold_gives_null(
    engine: FlowEngine, shop: Workshop
) -> None:
    run = await engine.start(engine.parse(MAYBE), {"name": None})

    record = await engine.wait(run, 10)

    assert record.state is RunState.SUCCEEDED, record.error
    assert record.output == dict.fromkeys(["text", "host", "spare", "all", "last"])
    assert {step.state for step in await engine.steps(run)} == {StepState.SKIPPED}
    assert not shop.log


@pytest.mark.usefixtures("parts")
async def test_a_fan_out_leaves_out_the_items_for_which_its_condition_does_not_hold(
    engine: FlowEngine, shop: Workshop
) -> None:
    places = [{"host": f"h{n}", "port": port, "name": "x"} for n, port in enumerate([1, 2, 3, 4])]
    run = await engine.start(engine.parse(CHOOSING), {"places": places})

    record = await engine.wait(run, 10)

    assert record.state is RunState.SUCCEEDED, record.error
    made = {
        f"h{n}": {"text": f"made h{n}", "host": "host1", "spare": None, "all": {"name": f"h{n}"}}
        for n in (1, 2)
    }
    assert record.output == {"some": [None, made["h1"], made["h2"], None], "ones": ["x-0", None, None, None]}
    assert shop.made == {"h1", "h2", "x-0"}


async def test_a_fan_out_may_wait_for_several_people(engine: FlowEngine) -> None:
    run = await engine.start(engine.parse(ASKING), {"people": ["kim", "lee"]})
    async with asyncio.timeout(10):
        async for _ in engine.follow(run):
            if (await engine.get(run)).state is RunState.WAITING:
                break

    for number, person in enumerate(["kim", "lee"]):
        await engine.approve(run, f"ask[{number}]", by=person)
        await engine.signal(run, f"told-{person}", {"host": person})

    record = await engine.wait(run, 10)
    assert [answer["by"] for answer in record.output["ask"]] == ["kim", "lee"]
    assert [place["host"] for place in record.output["told"]] == ["kim", "lee"]
