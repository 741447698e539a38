"""Locks: all at once, first come first served on every key, held until the end."""

import asyncio
from functools import partial

from hypothesis import given
from hypothesis import strategies as st
from tests.flow.workshop import Workshop

from skep.flow import FlowEngine, RunId, RunState
from skep.flow.admission.locks import Locks

LOCKED = """
flow: locked
input: {key: str, name: str}
lock: [thing/$input.key]
steps:
  a: {use: w.make, with: {name: $input.name}}
"""


@given(st.lists(st.sets(st.sampled_from("abcd")), max_size=12), st.randoms(use_true_random=False))
def test_nobody_shares_a_key_nobody_overtakes_and_everybody_is_served(
    wants: list[set[str]], random: object
) -> None:
    locks, holding, served = Locks(), dict[int, set[str]](), list[int]()

    def granted(number: int) -> None:
        assert not any(keys & wants[number] for keys in holding.values())
        holding[number] = wants[number]
        served.append(number)

    for number, keys in enumerate(wants):
        locks.request(RunId(str(number)), keys, partial(granted, number))
    while holding:
        number = random.choice(sorted(holding))  # type: ignore[attr-defined]
        del holding[number]
        locks.release(RunId(str(number)))

    assert sorted(served) == list(range(len(wants)))
    for key in "abcd":
        order = [number for number in served if key in wants[number]]
        assert order == sorted(order)
        assert locks.holder(key) is None


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
