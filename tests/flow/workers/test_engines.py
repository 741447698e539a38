"""Whole engines on one database: when one dies, the others go on with its runs, locks and all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

from sqlalchemy import update

from skep.flow import Context, Database, FlowEngine, Registry, RunState, step
from skep.flow.errors import FlowFault
from skep.flow.steps import RunId
from skep.flow.storage import tables

FLOW = """
flow: work
input: {job: str}
lock: [app/x]
steps:
  begin: {use: work, with: {job: $input.job}}
  end: {use: work, with: {job: $begin}}
output: {job: $end}
"""


class Bench:
    """What one engine's steps find: where they keep book, and what they wait for."""

    def __init__(self, name: str, book: list[tuple[str, str]]) -> None:
        self.name = name
        self.book = book
        self.entered = asyncio.Event()
        self.go_on = asyncio.Event()

    def environment(self, _route: str) -> "Bench":
        return self


@step
async def work(cx: Context[Any], job: str) -> str:
    bench: Bench = cx.env
    bench.book.append((bench.name, job))
    bench.entered.set()
    await bench.go_on.wait()
    return job


@asynccontextmanager
async def engines(url: str, *benches: Bench, idle: Bench | None = None) -> AsyncIterator[list[FlowEngine]]:
    """`idle`: of an engine without room for runs, which is opened last."""
    async with AsyncExitStack() as stack:
        opened = []
        for bench in (*benches, *([idle] if idle else [])):
            database = await Database.open(url, durable=False)
            stack.push_async_callback(database.close)
            registry = Registry()
            registry.add_step(work, "work")
            registry.add_documents({"work.yaml": FLOW})
            engine = FlowEngine(
                database,
                registry,
                bench.environment,
                shared=True,
                name=bench.name,
                lease=1.0,
                grace=0.1,
                capacity=0 if bench is idle else 100,
            )
            opened.append(await stack.enter_async_context(engine))
        yield opened


async def test_another_engine_goes_on_with_the_runs_of_one_that_died(url: str) -> None:
    book: list[tuple[str, str]] = []
    dying, other = Bench("dying", book), Bench("other", book)
    other.go_on.set()
    async with engines(url, dying, other) as (one, survivor):
        first = await one.start("work", {"job": "first"})
        await dying.entered.wait()
        second = await survivor.start("work", {"job": "second"})
        (just_asked,) = await survivor.why(second)
        while not (waits := (await survivor.why(second))[0].reasons[0]).holders:
            await asyncio.sleep(0.02)
        await one.abandon()

        async with asyncio.timeout(20):
            ends = [await survivor.wait(run) for run in (first, second)]

        assert [end.state for end in ends] == [RunState.SUCCEEDED, RunState.SUCCEEDED]
        assert all(end.worker.startswith("other-") for end in ends)
        assert (just_asked.state, waits.subject, waits.holders) == ("pending", "app/x", (first,))
        assert book == [("dying", "first"), *[("other", "first")] * 2, *[("other", "second")] * 2]


async def test_an_engine_that_is_held_for_dead_drops_its_runs_and_begins_anew(url: str) -> None:
    book: list[tuple[str, str]] = []
    asleep, other = Bench("asleep", book), Bench("other", book)
    other.go_on.set()
    async with engines(url, asleep, other) as (one, survivor), database_of(url) as database:
        run = await one.start("work", {"job": "first"})
        await asleep.entered.wait()
        old = (await one.get(run)).worker
        await fence(database, old)
        while (await survivor.get(run)).worker in (old, ""):
            await asyncio.sleep(0.02)
        asleep.go_on.set()  # the old call ends at last, and counts no more

        async with asyncio.timeout(20):
            end = await survivor.wait(run)
            second = await survivor.wait(await again(one))

        assert (end.state, second.state) == (RunState.SUCCEEDED, RunState.SUCCEEDED)
        assert old not in (end.worker, second.worker)
        assert [job for _, job in book] == ["first"] * 3 + ["second"] * 2


async def again(engine: FlowEngine) -> RunId:
    """Start a run as soon as the engine can."""
    async with asyncio.timeout(20):
        while True:
            with suppress(FlowFault):
                return await engine.start("work", {"job": "second"})
            await asyncio.sleep(0.05)


@asynccontextmanager
async def database_of(url: str) -> AsyncIterator[Database]:
    database = await Database.open(url, durable=False)
    yield database
    await database.close()


async def fence(database: Database, worker: str) -> None:
    change = update(tables.workers).where(tables.workers.c.id == worker).values(state="fenced")
    await database.write(lambda connection: connection.execute(change))


async def test_an_engine_without_room_starts_and_steers_runs_that_others_carry_out(url: str) -> None:
    book: list[tuple[str, str]] = []
    bench = Bench("worker", book)
    async with engines(url, bench, idle=Bench("idle", book)) as (_, idle):
        first = await idle.start("work", {"job": "first"})
        await bench.entered.wait()
        second = await idle.start("work", {"job": "second"})
        await idle.cancel(second)
        bench.go_on.set()

        async with asyncio.timeout(20):
            ends = [(await idle.wait(run)).state for run in (first, second)]

    assert ends == [RunState.SUCCEEDED, RunState.CANCELLED]
    assert {name for name, _ in book} == {"worker"}


async def test_an_engine_without_room_leaves_the_runs_of_the_dead_to_the_living(url: str) -> None:
    book: list[tuple[str, str]] = []
    dying, late = Bench("dying", book), Bench("late", book)
    late.go_on.set()
    async with engines(url, dying, idle=Bench("idle", book)) as (one, idle):
        run = await idle.start("work", {"job": "x"})
        await dying.entered.wait()
        await one.abandon()
        await asyncio.sleep(2.5)
        left = await idle.get(run)

        async with engines(url, late), asyncio.timeout(20):
            end = await idle.wait(run)

    assert left.state is RunState.RUNNING
    assert end.state is RunState.SUCCEEDED
    assert {name for name, _ in book} == {"dying", "late"}
