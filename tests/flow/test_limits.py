"""Limits and priorities as runs meet them: in one engine, and kept together by several."""

import asyncio
from collections.abc import Callable

from tests.flow.test_many_workers import called, crew, ended
from tests.flow.workshop import Workshop

from skep.flow import Database, FlowEngine, Priority, Registry, RunState
from skep.flow.admission.policies import Policy

LIMITED = """
flow: limited
input: {names: "list[str]"}
steps:
  all: {use: w.make, each: $input.names, with: {name: $item}, limit: {mirror: 2}}
"""
ONE = (
    "flow: one\ninput: {name: str}\nlimit: {crew: 2}\nsteps: {a: {use: w.make, with: {name: $input.name}}}\n"
)
PLAIN = "flow: plain\ninput: {name: str}\nsteps: {a: {use: w.make, with: {name: $input.name}}}\n"


async def most_at_once(shop: Workshop, until: Callable[[], bool]) -> None:
    while not until():
        await asyncio.sleep(0.001)


async def test_a_document_limits_how_many_of_its_steps_run_at_once(
    engine: FlowEngine, shop: Workshop
) -> None:
    run = await engine.start(engine.parse(LIMITED), {"names": [f"n{i}" for i in range(20)]})

    assert (await engine.wait(run, 10)).state is RunState.SUCCEEDED
    assert shop.most_running == 2


async def test_a_step_that_waits_for_a_limit_says_who_holds_it(engine: FlowEngine, shop: Workshop) -> None:
    gates = [shop.block(name) for name in ("a", "b")]
    run = await engine.start(engine.parse(LIMITED), {"names": ["a", "b", "c"]})
    await called(shop, "b")

    [reason] = [wait.reasons[0] for wait in await engine.why(run) if wait.step == "all[2]"]
    for gate in gates:
        gate.set()

    assert (await engine.wait(run, 5)).state is RunState.SUCCEEDED
    assert reason.kind == "limit"
    assert reason.subject == "mirror"
    assert set(reason.holders) == {f"{run}/all[0]", f"{run}/all[1]"}


async def test_an_operator_changes_a_limit_while_runs_wait_for_it(engine: FlowEngine, shop: Workshop) -> None:
    gate = shop.block("a")
    await engine.set_limit("tenant/*", Policy(concurrency=1), by="kim")
    flow = engine.parse(PLAIN)
    first = await engine.start(flow, {"name": "a"}, tenant="t")
    await called(shop, "a")
    second = await engine.start(flow, {"name": "b"}, tenant="t")
    other = await engine.start(flow, {"name": "c"}, tenant="u")
    assert (await engine.wait(other, 5)).state is RunState.SUCCEEDED
    assert not shop.calls["b"]

    await engine.set_limit("tenant/t", Policy(concurrency=5), by="kim")

    assert (await engine.wait(second, 5)).state is RunState.SUCCEEDED
    gate.set()
    assert (await engine.wait(first, 5)).state is RunState.SUCCEEDED
    assert [setting.key for setting in await engine.limits()] == ["tenant/*", "tenant/t"]


async def test_limits_of_operators_outlive_the_process(
    database: Database, registry: Registry, shop: Workshop
) -> None:
    await shop.attach(database)
    async with FlowEngine(database, registry, shop.environment) as engine:
        await engine.set_limit("step/w.make", Policy(concurrency=3), by="kim")
    async with FlowEngine(database, registry, shop.environment) as engine:
        text = LIMITED.replace(", limit: {mirror: 2}", "")
        run = await engine.start(engine.parse(text), {"names": [f"n{i}" for i in range(20)]})
        await engine.wait(run, 10)

    assert shop.most_running == 3


async def test_so_many_runs_of_a_flow_at_once(engine: FlowEngine, shop: Workshop) -> None:
    gates = [shop.block(name) for name in ("a", "b")]
    flow = engine.parse(ONE)
    runs = [await engine.start(flow, {"name": name}) for name in ("a", "b", "c")]
    await called(shop, "b")

    [wait] = await engine.why(runs[2])
    assert not shop.calls["c"]
    for gate in gates:
        gate.set()

    assert {(await engine.wait(run, 5)).state for run in runs} == {RunState.SUCCEEDED}
    assert set(wait.reasons[0].holders) == set(runs[:2])


async def test_urgent_work_does_not_wait_behind_bulk_work(
    database: Database, registry: Registry, shop: Workshop
) -> None:
    await shop.attach(database)
    async with FlowEngine(database, registry, shop.environment, concurrency=4, grace=0) as engine:
        flow = engine.parse(PLAIN)
        for number in range(50):
            shop.block(f"bulk{number}")
            await engine.start(flow, {"name": f"bulk{number}"}, priority=Priority.BULK)
        await called(shop, "bulk0")

        urgent = await engine.start(flow, {"name": "urgent"}, priority=Priority.URGENT)

        assert (await engine.wait(urgent, 5)).state is RunState.SUCCEEDED
        assert sum(shop.calls[f"bulk{number}"] for number in range(50)) < 4


async def test_several_workers_keep_a_limit_together(
    postgresql: str, registry: Registry, shop: Workshop
) -> None:
    names = [[f"{worker}{number}" for number in range(10)] for worker in "ab"]
    async with crew(postgresql, registry, shop, 2) as [one, two]:
        runs = [
            await engine.start(engine.parse(LIMITED), {"names": some})
            for engine, some in zip((one, two), names, strict=True)
        ]

        assert {await ended(one, run) for run in runs} == {RunState.SUCCEEDED}
    assert shop.most_running == 2


async def test_a_limit_that_is_set_reaches_the_other_workers(
    postgresql: str, registry: Registry, shop: Workshop
) -> None:
    async with crew(postgresql, registry, shop, 2) as [one, two]:
        await one.set_limit("mirror", Policy(concurrency=1), by="kim")
        while not two.policies.all():
            await asyncio.sleep(0.01)
        run = await two.start(two.parse(LIMITED), {"names": [f"n{i}" for i in range(8)]})

        assert await ended(two, run) is RunState.SUCCEEDED
    assert shop.most_running == 1
