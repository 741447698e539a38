"""Locks that runs hold from before their first step to their end; the gate itself: `test_admission_gate`."""

import asyncio

from tests.flow.workshop import Workshop

from skep.flow import FlowEngine, RunState

LOCKED = """
flow: locked
input: {key: str, name: str}
lock: [thing/$input.key]
steps:
  a: {use: w.make, with: {name: $input.name}}
"""


async def test_runs_with_the_same_lock_follow_each_other_and_others_pass(
    engine: FlowEngine, shop: Workshop
) -> None:
    flow = engine.parse(LOCKED)
    gate = shop.block("one")
    one = await engine.start(flow, {"key": "x", "name": "one"})
    two = await engine.start(flow, {"key": "x", "name": "two"})
    three = await engine.start(flow, {"key": "x", "name": "three"})
    other = await engine.start(flow, {"key": "y", "name": "other"})
    await engine.wait(other, 5)

    assert (await engine.get(two)).state is RunState.PENDING
    assert (await engine.get(two)).started is None
    gate.set()
    for run in (one, two, three):
        assert (await engine.wait(run, 5)).state is RunState.SUCCEEDED

    assert [name for name in shop.log if name != "other"] == ["one", "two", "three"]


async def test_a_run_that_waits_for_a_lock_can_be_cancelled(engine: FlowEngine, shop: Workshop) -> None:
    flow = engine.parse(LOCKED)
    gate = shop.block("one")
    one = await engine.start(flow, {"key": "x", "name": "one"})
    two = await engine.start(flow, {"key": "x", "name": "two"})

    await engine.cancel(two)

    assert (await engine.wait(two, 5)).state is RunState.CANCELLED
    gate.set()
    await engine.wait(one, 5)
    assert shop.log == ["one"]


async def test_a_run_that_needs_an_operator_keeps_its_locks(engine: FlowEngine, shop: Workshop) -> None:
    flow = engine.parse(LOCKED)
    shop.fail("one", ValueError("no"))
    shop.fail("undo one", ValueError("no"))
    one = await engine.start(flow, {"key": "x", "name": "one"})
    two = await engine.start(flow, {"key": "x", "name": "two"})
    async for event in engine.follow(one):
        if event.kind == "run-needs-operator":
            break
    await asyncio.sleep(0.05)

    assert (await engine.get(two)).state is RunState.PENDING
    await engine.resolve(one, "a", "skip")

    assert (await engine.wait(two, 5)).state is RunState.SUCCEEDED
