"""The death of the process, anywhere: simulated at each commit, and once for real with kill -9."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.flow import workshop
from tests.flow.workshop import Workshop

from skep.flow import Database, FlowEngine, Registry, RunState
from skep.flow.testing import CrashingDatabase, LawBroken, check_three_laws

CHAIN = """
flow: chain
input: {name: str}
lock: [thing/$input.name]
steps:
  a: {use: w.make, with: {name: a}}
  b: {use: w.enlist, with: {name: b}, after: [a]}
  c: {use: w.make, with: {name: c}, after: [a]}
  d: {use: w.make, with: {name: d}, after: [b, c]}
"""


MIXED = """
flow: mixed
steps:
  a: {use: w.make, with: {name: a}}
  b: {use: w.enlist, with: {name: b}}
  c: {use: w.make, with: {name: c}, after: [a, b]}
"""


@asynccontextmanager
async def new_workshop() -> AsyncIterator[Workshop]:
    yield Workshop()


async def reopen(url: str, registry: Registry, shop: Workshop) -> tuple[Database, FlowEngine]:
    database = await CrashingDatabase.open(url, durable=False)
    await shop.attach(database)
    return database, FlowEngine(
        database, registry, shop.environment, retry_delay=lambda _tries: 0.001, grace=0
    )


async def test_the_three_laws_hold_for_a_flow_of_mixed_steps(tmp_path: Path) -> None:
    registry = workshop.registry()
    registry.add_flow(MIXED, "mixed.yaml")

    proof = await check_three_laws(registry, "mixed", {}, new_workshop, tmp_path, every=4)

    assert proof.failures == 6
    assert proof.crashes > 4
    assert proof.repetitions == 2


async def test_the_proof_finds_a_step_that_cannot_be_undone(tmp_path: Path) -> None:
    registry = workshop.registry()
    registry.add_flow("flow: f\nsteps: {a: {use: w.leave, with: {name: a}}}\n", "f.yaml")

    with pytest.raises(LawBroken, match="fail anywhere: a failed after its effect"):
        await check_three_laws(registry, "f", {}, new_workshop, tmp_path)


async def test_idempotent_steps_found_running_are_run_again(
    url: str, registry: Registry, shop: Workshop
) -> None:
    database, engine = await reopen(url, registry, shop)
    shop.block("c")
    await engine.__aenter__()
    run = await engine.start(engine.parse(CHAIN), {"name": "n"})
    while not shop.calls["c"] or not shop.calls["b"]:
        await asyncio.sleep(0.002)
    await engine.abandon()
    await database.abandon()
    shop.faults.clear()

    database, engine = await reopen(url, registry, shop)
    async with engine:
        record = await engine.wait(run, 5)
        attempts = {step.name: step.attempts for step in await engine.steps(run)}
    await database.close()

    assert record.state is RunState.SUCCEEDED
    assert attempts["a"] == 1
    assert attempts["c"] == 2
    assert shop.calls["a"] == 1


async def test_an_at_most_once_step_found_running_asks_an_operator(
    url: str, registry: Registry, shop: Workshop
) -> None:
    database, engine = await reopen(url, registry, shop)
    shop.block("l")
    await engine.__aenter__()
    run = await engine.start(engine.parse("flow: f\nsteps: {l: {use: w.launch, with: {name: l}}}\n"), {})
    while not shop.calls["l"]:
        await asyncio.sleep(0.002)
    await engine.abandon()
    await database.abandon()
    shop.faults.clear()

    database, engine = await reopen(url, registry, shop)
    async with engine:
        record = await engine.get(run)
        assert record.state is RunState.NEEDS_OPERATOR
        assert "whether it had its effect is not known" in record.error
        await engine.resolve(run, "l", "retry", by="kim")
        assert (await engine.wait(run, 5)).state is RunState.SUCCEEDED
    await database.close()
    assert shop.calls["l"] == 2


async def test_a_run_whose_step_no_longer_exists_waits_and_others_go_on(
    url: str, registry: Registry, shop: Workshop
) -> None:
    database, engine = await reopen(url, registry, shop)
    shop.block("a")
    await engine.__aenter__()
    lost = await engine.start(engine.parse(CHAIN), {"name": "n"})
    found = await engine.start(engine.parse("flow: g\nsteps: {x: {use: w.make, with: {name: a}}}\n"), {})
    await engine.abandon()
    await database.abandon()
    shop.faults.clear()
    poorer = workshop.registry()
    del poorer.steps["w.enlist"]

    database, engine = await reopen(url, poorer, shop)
    async with engine:
        assert (await engine.wait(found, 5)).state is RunState.SUCCEEDED
        record = await engine.get(lost)
        assert record.state is RunState.NEEDS_OPERATOR
        assert record.error == "flow chain: step w.enlist of the program no longer exists"
        poorer.steps["w.enlist"] = registry.steps["w.enlist"]
        await engine.resolve(lost, "", "retry", by="kim")
        assert (await engine.wait(lost, 5)).state is RunState.SUCCEEDED
    await database.close()


async def test_a_generated_flow_is_resumed_without_its_document(
    url: str, registry: Registry, shop: Workshop
) -> None:
    registry.add_flow("flow: inner\nsteps: {x: {use: w.make, with: {name: inner}}}\n", "inner.yaml")
    database, engine = await reopen(url, registry, shop)
    shop.block("inner")
    await engine.__aenter__()
    run = await engine.start(engine.parse("flow: made-up\nsteps: {s: {flow: inner}}\n"), {})
    await engine.abandon()
    await database.abandon()
    shop.faults.clear()

    database, engine = await reopen(url, workshop.registry(), shop)
    async with engine:
        assert (await engine.wait(run, 5)).state is RunState.SUCCEEDED
        assert [step.name for step in await engine.steps(run)] == ["s.x"]
    await database.close()


async def test_closing_leaves_runs_to_be_resumed(url: str, registry: Registry, shop: Workshop) -> None:
    database, engine = await reopen(url, registry, shop)
    shop.block("c")
    async with engine:
        run = await engine.start(engine.parse(CHAIN), {"name": "n"})
    await database.close()
    shop.faults.clear()

    database, engine = await reopen(url, registry, shop)
    async with engine:
        assert (await engine.wait(run, 5)).state is RunState.SUCCEEDED
    await database.close()


async def test_kill_9_of_a_real_process_loses_nothing(url: str, tmp_path: Path) -> None:
    """The child's steps write files; it is killed in the middle, and another child ends what it began."""
    for pause in (0.15, 0.3):
        child = await spawn(url, tmp_path, "start")
        assert child.stdout is not None
        assert await child.stdout.readline() == b"started\n"
        await asyncio.sleep(pause)
        os.kill(child.pid, signal.SIGKILL)
        await child.wait()

    child = await spawn(url, tmp_path, "finish")
    output, _ = await child.communicate()

    assert child.returncode == 0
    assert output.split() == [b"started", *[b"succeeded"] * 20]
    files = sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("made"))
    assert len(files) == 20 * 8


async def spawn(url: str, directory: Path, what: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.flow.child",
        url,
        str(directory),
        what,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )


@pytest.mark.parametrize("use", ["make", "enlist"])
async def test_a_serial_step_costs_about_one_commit(
    url: str, registry: Registry, shop: Workshop, use: str
) -> None:
    after = ["", *(f"s{i}" for i in range(19))]
    steps = [f"  s{i}: {{use: w.{use}, with: {{name: s{i}}}, after: [{after[i]}]}}" for i in range(20)]
    database = await CrashingDatabase.open(url, durable=False)
    await shop.attach(database)
    async with FlowEngine(database, registry, shop.environment) as engine:
        database.arm(None)
        await engine.wait(await engine.start(engine.parse("flow: f\nsteps:\n" + "\n".join(steps)), {}), 10)
        commits = database.points // 2
    await database.close()

    assert commits <= 1.5 * 20
