"""Several engines on one PostgreSQL: runs of the dead are adopted, orders find their way, nothing is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from sqlalchemy import update
from tests.flow.workshop import Workshop

from skep.flow import Database, FlowEngine, Registry, RunId, RunState, WrongState
from skep.flow.storage import tables

LEASE = 6.0
"""Seconds: longer than a busy machine leaves a worker waiting, for those whom no test has die must live."""
CHAIN = """
flow: chain
input: {name: str}
steps:
  a: {use: w.make, with: {name: "${input.name}-a"}}
  b: {use: w.enlist, with: {name: "${input.name}-b"}, after: [a]}
  c: {use: w.make, with: {name: "${input.name}-c"}, after: [b]}
"""
LOCKED = CHAIN.replace("steps:", "lock: [one]\nsteps:")


@asynccontextmanager
async def crew(
    url: str, registry: Registry, shop: Workshop, count: int, *, capacity: int = 1000
) -> AsyncIterator[list[FlowEngine]]:
    """So many engines, each with connections of its own, as in processes apart."""
    async with AsyncExitStack() as stack:
        engines = []
        for number in range(count):
            database = await Database.open(url, durable=False)
            stack.push_async_callback(database.close)
            await shop.attach(database)
            engine = FlowEngine(
                database,
                registry,
                shop.environment,
                shared=True,
                lease=LEASE,
                name=f"w{number}",
                grace=0,
                capacity=capacity,
                retry_delay=lambda _tries: 0.001,
            )
            engines.append(await stack.enter_async_context(engine))
        yield engines


async def expires(engine: FlowEngine, seen_by: FlowEngine) -> None:
    """Its lease ends now, and not in a while."""
    workers = tables.workers
    end = update(workers).where(workers.c.id == engine._tenure.member.id).values(expires=0)
    await seen_by._database.write(lambda connection: connection.execute(end))


async def called(shop: Workshop, name: str) -> None:
    while not shop.calls[name]:
        await asyncio.sleep(0.002)


async def ended(engine: FlowEngine, run: RunId) -> RunState:
    return (await engine.wait(run, 20)).state


async def test_the_runs_of_a_dead_worker_are_adopted_and_finished(
    postgresql: str, registry: Registry, shop: Workshop
) -> None:
    async with crew(postgresql, registry, shop, 3) as [dies, *live]:
        flow = dies.parse(CHAIN)
        shop.block("x0-a")
        runs = [await dies.start(flow, {"name": f"x{number}"}) for number in range(20)]
        await called(shop, "x19-a")
        await dies.abandon()
        await expires(dies, live[0])
        shop.faults.clear()

        states = {await ended(live[0], run) for run in runs}
        records = [await live[0].get(run) for run in runs]

    assert states == {RunState.SUCCEEDED}
    assert shop.made == {f"x{number}-{end}" for number in range(20) for end in "ac"}
    assert all(shop.calls[f"x{number}-b"] == 1 for number in range(20))
    assert any(record.worker.startswith(("w1", "w2")) for record in records)


async def test_a_worker_that_was_held_for_dead_writes_nothing_more_and_begins_anew(
    postgresql: str, registry: Registry, shop: Workshop
) -> None:
    async with crew(postgresql, registry, shop, 2) as [sleeper, other]:
        gate = shop.block("x-a")
        run = await sleeper.start(sleeper.parse(CHAIN), {"name": "x"})
        await called(shop, "x-a")
        before = sleeper._tenure.member.id
        assert sleeper._sharing is not None
        sleeper._sharing.cancel()  # it renews its lease no more, though it works on
        await expires(sleeper, other)
        while (await other.get(run)).worker == before:
            await asyncio.sleep(0.02)
        gate.set()

        assert await ended(other, run) is RunState.SUCCEEDED
        while sleeper._tenure.member.id == before:
            await asyncio.sleep(0.01)
        again = await sleeper.start(sleeper.parse(CHAIN), {"name": "y"})
        assert await ended(other, again) is RunState.SUCCEEDED
        events = await other.history(run)

    assert shop.calls["x-b"] == 1
    assert shop.calls["x-c"] == 1
    assert [event.kind for event in events].count("run-succeeded") == 1
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))


async def test_orders_and_signals_reach_the_worker_that_has_the_run(
    postgresql: str, registry: Registry, shop: Workshop
) -> None:
    text = """
flow: deploy
steps:
  ok: {wait: approval, with: {message: "go?"}, timeout: 1h}
  paid: {wait: signal, with: {name: payment}, timeout: 1h}
  end: {use: w.make, with: {name: end}, after: [ok, paid]}
"""
    async with crew(postgresql, registry, shop, 2) as [owner, other]:
        run = await owner.start(owner.parse(text), {})

        await other.pause(run, by="kim")
        paused = (await other.get(run)).state
        await other.resume(run, by="kim")
        waits = {wait.step for wait in await other.why(run)}
        await other.approve(run, "ok", by="kim")
        await other.signal(run, "payment", {"sum": 3})

        assert await ended(other, run) is RunState.SUCCEEDED
        with pytest.raises(WrongState, match="has ended"):
            await other.cancel(run)
    assert paused is RunState.PAUSED
    assert waits == {"ok", "paid", "end"}


async def test_a_lock_is_held_by_one_run_of_all_workers(
    postgresql: str, registry: Registry, shop: Workshop
) -> None:
    async with crew(postgresql, registry, shop, 2) as [one, two]:
        gate = shop.block("x-a")
        first = await one.start(one.parse(LOCKED), {"name": "x"})
        await called(shop, "x-a")
        second = await two.start(two.parse(LOCKED), {"name": "y"})
        await asyncio.sleep(0.3)

        assert not shop.calls["y-a"]
        [wait] = await two.why(second)
        gate.set()

        assert await ended(two, first) is RunState.SUCCEEDED
        assert await ended(two, second) is RunState.SUCCEEDED
    assert wait.reasons[0].kind == "lock"
    assert wait.reasons[0].holders == (first,)


async def test_a_lock_goes_with_its_run_to_the_worker_that_adopts_it(
    postgresql: str, registry: Registry, shop: Workshop
) -> None:
    async with crew(postgresql, registry, shop, 2) as [dies, lives]:
        shop.block("x-c")
        first = await dies.start(dies.parse(LOCKED), {"name": "x"})
        await called(shop, "x-c")
        second = await lives.start(lives.parse(LOCKED), {"name": "y"})
        await dies.abandon()
        await expires(dies, lives)
        shop.faults.clear()

        assert await ended(lives, first) is RunState.SUCCEEDED
        assert await ended(lives, second) is RunState.SUCCEEDED

    order = [name for name in shop.log if name in ("x-c", "y-a")]
    assert order == ["x-c", "x-c", "y-a"]


async def test_workers_that_are_full_leave_runs_to_the_others(
    postgresql: str, registry: Registry, shop: Workshop
) -> None:
    async with crew(postgresql, registry, shop, 2, capacity=3) as [one, two]:
        gates = [shop.block(f"x{number}-a") for number in range(6)]
        runs = [await one.start(one.parse(CHAIN), {"name": f"x{number}"}) for number in range(6)]
        for number in range(6):
            await called(shop, f"x{number}-a")
        workers = {(await one.get(run)).worker[:2] for run in runs}
        for gate in gates:
            gate.set()

        assert {await ended(two, run) for run in runs} == {RunState.SUCCEEDED}
    assert workers == {"w0", "w1"}


async def test_following_a_run_of_another_worker_tells_everything(
    postgresql: str, registry: Registry, shop: Workshop
) -> None:
    async with crew(postgresql, registry, shop, 2) as [one, two]:
        gate = shop.block("x-a")
        run = await one.start(one.parse(CHAIN), {"name": "x"})
        following = asyncio.create_task(collect(two, run))
        await called(shop, "x-a")
        gate.set()

        kinds = await asyncio.wait_for(following, 10)

    assert kinds[0] == "run-created"
    assert kinds[-1] == "run-succeeded"


async def collect(engine: FlowEngine, run: RunId) -> list[str]:
    return [event.kind async for event in engine.follow(run)]
