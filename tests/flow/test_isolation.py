"""Steps and runs that harm their worker: found, named, and kept apart."""

import asyncio
import sys
import time
from pathlib import Path

from tests.flow.workshop import Workshop

from skep.flow import Context, Database, FlowEngine, Registry, RunState, step

ROOT = Path(__file__).parents[2]


async def live(url: str, what: str) -> tuple[int, list[str]]:
    """One life of the process: its exit code and what it said."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.flow.poison", url, what, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    output, _ = await child.communicate()
    return child.returncode or 0, output.decode().splitlines()


async def test_a_run_that_kills_its_worker_again_and_again_is_kept_apart(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/flow.db"

    code, _ = await live(url, "start")
    lives = 1
    while code == 9:
        code, output = await live(url, "finish")
        lives += 1

    again, _ = await live(url, "finish")

    assert code == again == 0
    assert 3 <= lives <= 6
    assert sorted(output)[1:] == ["good succeeded "] * 10
    assert sorted(output)[0].startswith("bad needs-operator its worker died 3 times")


async def test_an_operator_lets_an_isolated_run_go_or_ends_it(
    database: Database, registry: Registry, shop: Workshop
) -> None:
    await shop.attach(database)
    flow = "flow: f\nsteps: {a: {use: w.make, with: {name: a}}}\n"
    runs = []
    shop.block("a")
    engine = FlowEngine(database, registry, shop.environment, grace=0)
    async with engine:
        runs = [await engine.start(engine.parse(flow), {}) for _ in range(2)]
    engine = FlowEngine(database, registry, shop.environment, grace=0)
    await engine.__aenter__()
    for run in runs:
        engine._roster.isolate(run, "said so")
    await engine._ledger.journal.flushed()
    shop.faults.clear()
    records = [await engine.get(run) for run in runs]
    [wait] = await engine.why(runs[0])

    await engine.resolve(runs[0], "", "retry", by="kim")
    await engine.resolve(runs[1], "", "skip", by="kim")

    assert [record.state for record in records] == [RunState.NEEDS_OPERATOR] * 2
    assert (await engine.wait(runs[0], 5)).state is RunState.SUCCEEDED
    assert (await engine.wait(runs[1], 5)).state is RunState.FAILED
    assert wait.reasons[0].message == "said so"
    await engine.__aexit__(None, None, None)


async def test_a_step_that_blocks_the_event_loop_is_named(database: Database) -> None:
    @step
    async def block(cx: Context[None]) -> None:
        time.sleep(1.6)

    registry = Registry()
    registry.add_step(block, "block")
    async with FlowEngine(database, registry, lambda _route: None) as engine:
        run = await engine.start(engine.parse("flow: f\nsteps: {stuck: {use: block}}\n"), {})
        told = [event async for event in engine.follow(run) if event.kind == "blocked"]
        await engine.wait(run, 10)

    assert [event.step for event in told] == ["stuck"]
    assert "test_isolation.py" in told[0].message
    assert "blocks the event loop for more than 1." in told[0].message


async def test_a_step_that_takes_much_memory_is_named(database: Database) -> None:
    @step
    async def hoard(cx: Context[None]) -> int:
        hoarded = [bytearray(b"x") * (300 * 2**20)]
        await asyncio.sleep(0.6)
        return len(hoarded)

    registry = Registry()
    registry.add_step(hoard, "hoard")
    async with FlowEngine(database, registry, lambda _route: None) as engine:
        run = await engine.start(engine.parse("flow: f\nsteps: {fat: {use: hoard}}\n"), {})
        told = [event async for event in engine.follow(run) if event.kind == "memory"]

    assert [event.step for event in told] == ["fat"]
    assert "the worker grew by 3" in told[0].message


async def test_a_step_that_never_returns_is_interrupted_when_its_time_is_up(
    engine: FlowEngine, shop: Workshop
) -> None:
    shop.block("a")
    run = await engine.start(
        engine.parse("flow: f\nsteps: {a: {use: w.make, with: {name: a}, timeout: 50ms}}\n"), {}
    )

    record = await engine.wait(run, 5)

    assert record.error == "step a: took longer than 0.05 s"
    assert shop.made == set()
