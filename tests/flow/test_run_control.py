"""Pause, resume, cancel, retry, rerun, one by one and in bulk; what a failure means."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from tests.flow.test_waits import until
from tests.flow.workshop import Workshop

from skep.flow import Database, FlowEngine, Priority, Registry, RunFilter, RunState, StepState, WrongState

TWO = """
flow: two
input: {name: str}
FAILURE
steps:
  a: {use: w.make, with: {name: "${input.name}-a"}}
  b: {use: w.make, with: {name: "${input.name}-b"}, after: [a]}
  c: {use: w.make, with: {name: "${input.name}-c"}, after: [b]}
"""
PLAIN = TWO.replace("FAILURE\n", "")


async def test_a_paused_run_starts_nothing_more_until_it_is_resumed(
    engine: FlowEngine, shop: Workshop
) -> None:
    gate = shop.block("x-a")
    run = await engine.start(engine.parse(PLAIN), {"name": "x"})
    while not shop.calls["x-a"]:
        await asyncio.sleep(0.001)
    await engine.pause(run, by="kim")
    gate.set()
    async for event in engine.follow(run):
        if event.kind == "succeeded":
            break

    waits = await engine.why(run)
    assert (await engine.get(run)).state is RunState.PAUSED
    assert shop.log == ["x-a"]
    assert waits[0].reasons[0].kind == "paused"

    await engine.resume(run, by="kim")

    assert (await engine.wait(run, 5)).state is RunState.SUCCEEDED
    kinds = [f"{event.kind} {event.message}".strip() for event in await engine.history(run)]
    assert "run-paused by kim" in kinds
    assert "run-unpaused by kim" in kinds


async def test_a_run_stays_paused_over_a_restart(url: str, registry: Registry, shop: Workshop) -> None:
    database = await Database.open(url, durable=False)
    await shop.attach(database)
    async with FlowEngine(database, registry, shop.environment, grace=0) as engine:
        shop.block("x-b")
        run = await engine.start(engine.parse(PLAIN), {"name": "x"})
        while not shop.calls["x-b"]:
            await asyncio.sleep(0.001)
        await engine.pause(run)
    shop.faults.clear()
    async with FlowEngine(database, registry, shop.environment, grace=0) as engine:
        assert (await engine.get(run)).state is RunState.PAUSED
        assert shop.calls["x-b"] == 1
        await engine.resume(run)
        assert (await engine.wait(run, 5)).state is RunState.SUCCEEDED
    await database.close()


async def test_a_paused_run_can_be_cancelled(engine: FlowEngine, shop: Workshop) -> None:
    gate = shop.block("x-a")
    run = await engine.start(engine.parse(PLAIN), {"name": "x"})
    await engine.pause(run)
    gate.set()

    await engine.cancel(run)

    assert (await engine.wait(run, 5)).state is RunState.CANCELLED
    assert shop.made == set()


async def test_a_failed_run_that_keeps_what_it_did_goes_on_from_the_failed_step(
    engine: FlowEngine, shop: Workshop
) -> None:
    shop.fail("x-b", ValueError("no"))
    run = await engine.start(engine.parse(TWO.replace("FAILURE", "on_failure: keep")), {"name": "x"})
    record = await engine.wait(run, 5)
    assert record.state is RunState.FAILED
    assert shop.made == {"x-a", "x-b"}
    shop.faults.clear()

    await engine.retry(run, by="kim")

    record = await engine.wait(run, 5)
    assert record.state is RunState.SUCCEEDED
    assert record.error == ""
    assert shop.calls["x-a"] == 1
    assert shop.calls["x-b"] == 2
    kinds = [event.kind for event in await engine.history(run)]
    assert kinds.count("run-retried") == 1


async def test_a_failed_run_that_was_undone_is_done_again_from_its_beginning(
    engine: FlowEngine, shop: Workshop
) -> None:
    shop.fail("x-c", ValueError("no"), times=1)
    run = await engine.start(engine.parse(PLAIN), {"name": "x"})
    assert (await engine.wait(run, 5)).state is RunState.FAILED
    assert shop.made == set()

    await engine.retry(run)

    assert (await engine.wait(run, 5)).state is RunState.SUCCEEDED
    assert shop.made == {"x-a", "x-b", "x-c"}
    with pytest.raises(WrongState, match="succeeded"):
        await engine.retry(run)


async def test_a_failed_step_may_ask_an_operator_instead(engine: FlowEngine, shop: Workshop) -> None:
    shop.fail("x-b", ValueError("no"), times=1)
    run = await engine.start(engine.parse(TWO.replace("FAILURE", "on_failure: ask")), {"name": "x"})
    await until(engine, run, RunState.NEEDS_OPERATOR)
    [wait] = [wait for wait in await engine.why(run) if wait.step == "b"]

    await engine.resolve(run, "b", "retry", by="kim")

    assert (await engine.wait(run, 5)).state is RunState.SUCCEEDED
    assert wait.reasons[0].kind == "operator"
    assert shop.calls["x-b"] == 2


async def test_a_run_is_done_again_as_a_new_one(engine: FlowEngine, shop: Workshop) -> None:
    run = await engine.start(engine.parse(PLAIN), {"name": "x"}, tenant="t", priority=Priority.HIGH)
    await engine.wait(run, 5)

    again = await engine.rerun(run, by="kim")

    record = await engine.wait(again, 5)
    assert record.state is RunState.SUCCEEDED
    assert (record.parent, record.tenant, record.priority) == (run, "t", Priority.HIGH)
    assert shop.calls["x-a"] == 2


async def test_bulk_orders_reach_every_run_that_is_meant(engine: FlowEngine, shop: Workshop) -> None:
    for name in ("x", "y", "z"):
        shop.block(f"{name}-b")
    flow = engine.parse(PLAIN)
    runs = [await engine.start(flow, {"name": name}, tenant="t") for name in ("x", "y")]
    other = await engine.start(flow, {"name": "z"}, tenant="u")

    done = await engine.bulk("cancel", RunFilter(tenant="t", active=True), by="kim")

    assert {item.run for item in done} == set(runs)
    assert all(item.error == "" for item in done)
    for run in runs:
        assert (await engine.wait(run, 5)).state is RunState.CANCELLED
    assert not (await engine.get(other)).state.ended
    again = await engine.bulk("pause", RunFilter(tenant="t"))
    assert all("has ended" in item.error for item in again)


async def test_a_deadline_given_at_the_start(engine: FlowEngine, shop: Workshop) -> None:
    shop.block("x-b")
    run = await engine.start(
        engine.parse(PLAIN), {"name": "x"}, deadline=datetime.now(UTC) + timedelta(seconds=0.1)
    )

    record = await engine.wait(run, 5)

    assert record.state is RunState.FAILED
    assert shop.made == set()


async def test_why_says_what_each_step_waits_for(engine: FlowEngine, shop: Workshop) -> None:
    shop.block("x-a")
    run = await engine.start(engine.parse(PLAIN), {"name": "x"})
    while not shop.calls["x-a"]:
        await asyncio.sleep(0.001)

    found = {wait.step: wait.reasons[0] for wait in await engine.why(run)}

    assert {step: (reason.kind, reason.subject) for step, reason in found.items()} == {
        "a": ("running", "a"),
        "b": ("dependency", "a"),
        "c": ("dependency", "b"),
    }


async def test_a_large_result_is_stored_by_reference_and_read_back(
    url: str, registry: Registry, shop: Workshop
) -> None:
    text = """
flow: big
steps:
  big: {use: w.big, with: {size: 200000}}
  hold: {use: w.make, with: {name: hold}, after: [big]}
  again: {use: w.measure, with: {text: $big}, after: [hold]}
output: {size: $again}
"""
    database = await Database.open(url, durable=False)
    await shop.attach(database)
    shop.block("hold")
    engine = FlowEngine(database, registry, shop.environment, grace=0)
    await engine.__aenter__()
    run = await engine.start(engine.parse(text), {})
    while not shop.calls["hold"]:
        await asyncio.sleep(0.001)
    await engine.abandon()
    shop.faults.clear()
    async with FlowEngine(database, registry, shop.environment, grace=0) as engine:
        record = await engine.wait(run, 5)
        states = {step.name: step.state for step in await engine.steps(run)}
    await database.close()

    assert record.output == {"size": 200000}
    assert states == dict.fromkeys(["big", "hold", "again"], StepState.SUCCEEDED)


async def test_a_result_beyond_all_bounds_is_refused(engine: FlowEngine) -> None:
    run = await engine.start(engine.parse("flow: f\nsteps: {a: {use: w.big, with: {size: 20000000}}}\n"), {})

    assert "return a reference" in (await engine.wait(run, 20)).error


async def test_runs_beyond_the_capacity_wait_in_the_database(
    database: Database, registry: Registry, shop: Workshop
) -> None:
    await shop.attach(database)
    async with FlowEngine(database, registry, shop.environment, capacity=4, grace=0.1) as engine:
        flow = engine.parse(PLAIN)
        runs = [await engine.start(flow, {"name": f"n{i}"}) for i in range(20)]
        while await engine.list(active=True):
            await asyncio.sleep(0.01)
        states = {(await engine.get(run)).state for run in runs}

    assert states == {RunState.SUCCEEDED}
    assert len(shop.made) == 60


async def test_a_run_goes_on_by_another_definition(engine: FlowEngine, shop: Workshop) -> None:
    old = """
flow: f
steps:
  a: {use: w.make, with: {name: a}}
  ok: {wait: signal, with: {name: go}, after: [a]}
"""
    new = old + "  more: {use: w.make, with: {name: more}, after: [ok]}\n"
    run = await engine.start(engine.parse(old), {})
    await until(engine, run, RunState.WAITING)

    await engine.migrate(run, engine.parse(new))
    await engine.signal(run, "go")

    assert (await engine.wait(run, 5)).state is RunState.SUCCEEDED
    assert shop.log == ["a", "more"]
    assert "run-migrated" in [event.kind for event in await engine.history(run)]


async def test_a_run_does_not_change_its_definition_while_a_step_runs(
    engine: FlowEngine, shop: Workshop
) -> None:
    gate = shop.block("x-a")
    run = await engine.start(engine.parse(PLAIN), {"name": "x"})
    while not shop.calls["x-a"]:
        await asyncio.sleep(0.001)

    with pytest.raises(WrongState, match="while steps run: a"):
        await engine.migrate(run, engine.parse(PLAIN.replace("flow: two", "flow: other")))
    gate.set()

    assert (await engine.wait(run, 5)).state is RunState.SUCCEEDED
