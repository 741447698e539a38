"""Fan-outs: a step, or a sub-flow, once per item of a list that is known only when the run goes on."""

import asyncio

import pytest
from structlog.testing import capture_logs
from tests.flow.workshop import Workshop

from skep.flow import Database, FlowEngine, Registry, RunState, StepState

EACH = """
flow: fleet
input: {names: "list[str]"}
steps:
  first: {use: w.make, with: {name: first}}
  all: {use: w.make, each: $input.names, with: {name: "$item"}, after: [first]}
  last: {use: w.gather, with: {names: $all}}
output: {made: $all}
"""

PART = """
flow: part
input: {name: str}
steps:
  make: {use: w.make, with: {name: "${input.name}-a"}}
  enlist: {use: w.enlist, with: {name: $make}}
  more: {use: w.make, with: {name: "${input.name}-b"}, after: [enlist]}
output: {name: $more}
"""

PARTS = """
flow: parts
input: {names: "list[str]"}
steps:
  all: {flow: part, each: $input.names, with: {name: $item}, FAILURES parallel: 2}
"""

NESTED = """
flow: nested
input: {rows: "list[list[str]]"}
steps:
  row: {flow: row, each: $input.rows, with: {cells: $item, row: $index}}
output: {rows: $row}
"""

ROW = """
flow: row
input: {cells: "list[str]", row: int}
steps:
  cell: {use: w.make, each: $input.cells, with: {name: "${input.row}.$index.$item"}}
output: {cells: $cell}
"""


async def test_a_step_runs_once_per_item_and_its_results_are_a_list(
    engine: FlowEngine, shop: Workshop
) -> None:
    run = await engine.start(engine.parse(EACH), {"names": ["a", "b", "c"]})

    record = await engine.wait(run, 10)

    assert record.state is RunState.SUCCEEDED
    assert record.output == {"made": ["a", "b", "c"]}
    assert shop.log[0] == "first"
    assert sorted(shop.log[1:4]) == ["a", "b", "c"]
    assert shop.log[4] == "gather"


async def test_the_items_have_rows_of_their_own(engine: FlowEngine) -> None:
    run = await engine.start(engine.parse(EACH), {"names": ["a", "b"]})
    await engine.wait(run, 10)

    states = {step.name: step.state for step in await engine.steps(run)}

    assert states == dict.fromkeys(["first", "all", "all[0]", "all[1]", "last"], StepState.SUCCEEDED)


async def test_an_empty_list_is_an_empty_result(engine: FlowEngine) -> None:
    run = await engine.start(engine.parse(EACH), {"names": []})

    assert (await engine.wait(run, 10)).output == {"made": []}


async def test_at_most_so_many_items_at_once(engine: FlowEngine, shop: Workshop) -> None:
    text = EACH.replace("each:", "parallel: 3, each:")
    run = await engine.start(engine.parse(text), {"names": [f"n{i}" for i in range(20)]})

    await engine.wait(run, 10)

    assert shop.most_running == 3


async def test_an_item_that_fails_fails_the_run_and_everything_is_undone(
    engine: FlowEngine, shop: Workshop
) -> None:
    shop.fail("b", ValueError("no"))
    run = await engine.start(engine.parse(EACH), {"names": ["a", "b", "c"]})

    record = await engine.wait(run, 10)

    assert record.state is RunState.FAILED
    assert record.error == "step all[1]: no"
    assert shop.made == set()


@pytest.mark.parametrize(("failures", "good"), [("1", False), ("2", True), ("30%", False), ("50%", True)])
async def test_so_many_items_may_fail_and_are_undone_alone(
    engine: FlowEngine, shop: Workshop, failures: str, good: bool
) -> None:
    shop.fail("b", ValueError("no"))
    shop.fail("d", ValueError("no"))
    text = EACH.replace("each:", f"failures: {failures}, each:").replace("names: $all", "names: [x]")
    run = await engine.start(engine.parse(text), {"names": ["a", "b", "c", "d"]})

    record = await engine.wait(run, 10)

    assert record.state is (RunState.SUCCEEDED if good else RunState.FAILED)
    assert shop.made == ({"first", "a", "c"} if good else set())
    if good:
        assert record.output == {"made": ["a", None, "c", None]}


async def test_the_last_item_may_fail_with_nothing_to_undo(engine: FlowEngine, shop: Workshop) -> None:
    shop.fail("c", ValueError("no"))
    text = """
flow: read
input: {names: "list[str]"}
steps:
  all: {use: w.place, each: $input.names, with: {name: $item}, failures: 1}
  last: {use: w.make, with: {name: last}, after: [all]}
"""
    run = await engine.start(
        engine.parse(text.replace("list[str]", "list[Name]")), {"names": ["a", "b", "c"]}
    )

    assert (await engine.wait(run, 5)).state is RunState.SUCCEEDED
    assert shop.made == {"last"}


async def test_a_sub_flow_per_item_is_undone_as_one_when_a_step_of_it_fails(
    engine: FlowEngine, registry: Registry, shop: Workshop
) -> None:
    registry.add_flow(PART, "part.yaml")
    shop.fail("y-b", ValueError("no"))
    flow = engine.parse(PARTS.replace("FAILURES", "failures: 1,"))
    run = await engine.start(flow, {"names": ["x", "y", "z"]})

    record = await engine.wait(run, 10)

    assert record.state is RunState.SUCCEEDED
    assert shop.made == {"x-a", "x-b", "z-a", "z-b"}
    assert await shop.things() == ["x-a", "z-a"]


async def test_fan_outs_within_fan_outs(engine: FlowEngine, registry: Registry, shop: Workshop) -> None:
    registry.add_flow(ROW, "row.yaml")
    run = await engine.start(engine.parse(NESTED), {"rows": [["a", "b"], [], ["c"]]})

    record = await engine.wait(run, 10)

    assert record.state is RunState.SUCCEEDED, record.error
    assert shop.made == {"0.0.a", "0.1.b", "2.0.c"}
    assert record.output == {"rows": [{"cells": ["0.0.a", "0.1.b"]}, {"cells": []}, {"cells": ["2.0.c"]}]}


@pytest.mark.parametrize("fails", ["", "y-b"])
async def test_a_fan_out_is_resumed_where_it_was(
    url: str, registry: Registry, shop: Workshop, fails: str
) -> None:
    registry.add_flow(PART, "part.yaml")
    if fails:
        shop.fail(fails, ValueError("no"))
    shop.block("z-b")
    database = await Database.open(url, durable=False)
    await shop.attach(database)
    engine = FlowEngine(database, registry, shop.environment, retry_delay=lambda _: 0.001, grace=0)
    await engine.__aenter__()
    flow = engine.parse(PARTS.replace("FAILURES", "failures: 1,"))
    run = await engine.start(flow, {"names": ["x", "y", "z", "a", "b"]})
    while not shop.calls["z-b"] or not shop.calls["b-b"]:
        await asyncio.sleep(0.002)
    await engine.abandon()
    await database.abandon()
    shop.faults.pop("z-b")

    database = await Database.open(url, durable=False)
    shop.database = database
    async with FlowEngine(
        database, registry, shop.environment, retry_delay=lambda _: 0.001, grace=0
    ) as engine:
        record = await engine.wait(run, 10)
        listed = await shop.things()
    await database.close()

    left = {"x", "z", "a", "b"} | (set() if fails else {"y"})
    assert record.state is RunState.SUCCEEDED, record.error
    assert shop.made == {f"{name}-{end}" for name in left for end in "ab"}
    assert listed == sorted(f"{name}-a" for name in left)
    assert shop.calls["x-b"] == 1


async def test_a_thousand_items(engine: FlowEngine, shop: Workshop) -> None:
    run = await engine.start(engine.parse(EACH), {"names": [f"n{i}" for i in range(1000)]})

    record = await engine.wait(run, 60)

    assert record.state is RunState.SUCCEEDED
    assert len(shop.made) == 1001


async def test_thousands_of_items_are_opened_slice_by_slice(engine: FlowEngine, shop: Workshop) -> None:
    text = EACH.replace("after: [first]", 'when: $item == "n1500", after: [first]')
    flow = engine.parse(text.replace("  last: {use: w.gather, with: {names: $all}}\n", ""))

    run = await engine.start(flow, {"names": [f"n{i}" for i in range(2500)]})
    record = await engine.wait(run, 60)

    assert record.state is RunState.SUCCEEDED
    assert shop.made == {"first", "n1500"}
    made = record.output["made"]
    assert len(made) == 2500
    assert [index for index, value in enumerate(made) if value] == [1500]


async def test_a_run_that_is_stopped_while_its_items_are_opened_opens_no_more(
    engine: FlowEngine, shop: Workshop
) -> None:
    shop.fail("n0", ValueError("no"))

    with capture_logs():
        run = await engine.start(engine.parse(EACH), {"names": [f"n{i}" for i in range(5000)]})
        record = await engine.wait(run, 60)

    assert record.state is RunState.FAILED
    assert shop.made == set()
    assert len(shop.calls) < 5000
