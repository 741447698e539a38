"""Databases that go away, disks that are full, crowds, hostile names, and processes killed for it."""

import asyncio
import os
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict
from tests.flow.postgresql import Cluster, fresh_database
from tests.flow.workshop import Workshop

from skep.flow import Database, FlowEngine, Registry, RunId, RunState, WrongState
from skep.flow.errors import FlowFault, InputError

ROOT = Path(__file__).parents[2]
LARGE = [100_000, 10_000] if os.environ.get("SKEP_LARGE") else []
"""Items of a fan-out, and runs at once: `SKEP_LARGE=1` tries these too, which takes two minutes."""
CHAIN = """
flow: chain
input: {name: str}
steps:
  a: {use: w.make, with: {name: "${input.name}-a"}}
  b: {use: w.enlist, with: {name: "${input.name}-b"}, after: [a]}
  c: {use: w.make, with: {name: "${input.name}-c"}, after: [b]}
  d: {use: w.enlist, with: {name: "${input.name}-d"}, after: [c]}
"""
SIGNALS = """
flow: signals
steps:
  all: {wait: signal, each: $input.numbers, with: {name: go}, as: int}
input: {numbers: "list[int]"}
output: {all: $all}
"""
NOTHING = "flow: nothing\nsteps: {a: {use: w.measure, with: {text: a}}}\n"


@pytest.fixture(autouse=True)
def said() -> Iterator[list[EventDict]]:
    with capture_logs() as logs:
        yield logs


@asynccontextmanager
async def opened(
    url: str, registry: Registry, shop: Workshop, *, concurrency: int = 64, capacity: int = 10_000
) -> AsyncIterator[FlowEngine]:
    async with AsyncExitStack() as stack:
        database = await Database.open(url, durable=False)
        stack.push_async_callback(database.close)
        await shop.attach(database)
        yield await stack.enter_async_context(
            FlowEngine(
                database,
                registry,
                shop.environment,
                concurrency=concurrency,
                capacity=capacity,
                retry_delay=lambda _tries: 0.01,
                grace=0,
            )
        )


async def start_all(engine: FlowEngine, flow: str, names: list[str]) -> list[RunId]:
    parsed = engine.parse(flow)
    return await asyncio.gather(*(engine.start(parsed, {"name": name}) for name in names))


async def states(engine: FlowEngine, runs: list[RunId], patience: float = 30) -> set[RunState]:
    return {record.state for record in await asyncio.gather(*(engine.wait(run, patience) for run in runs))}


async def calls(shop: Workshop, number: int) -> None:
    while shop.calls.total() < number:
        await asyncio.sleep(0.002)


# a database that goes away


async def test_a_server_that_is_stopped_for_seconds_costs_runs_under_way_nothing_but_time(
    own_cluster: Cluster, registry: Registry, shop: Workshop
) -> None:
    names = [f"x{number}" for number in range(100)]
    async with (
        fresh_database(own_cluster) as url,
        opened(url, registry, shop, concurrency=8) as engine,
    ):
        runs = await start_all(engine, CHAIN, names)
        await calls(shop, 100)
        await asyncio.to_thread(own_cluster.stop)
        await asyncio.sleep(1.5)
        await asyncio.to_thread(own_cluster.start)

        assert await states(engine, runs) == {RunState.SUCCEEDED}
        assert await shop.things() == sorted(f"{name}-{end}" for name in names for end in "bd")
    assert shop.made == {f"{name}-{end}" for name in names for end in "ac"}
    assert max(shop.calls[f"{name}-{end}"] for name in names for end in "ac") == 1


async def test_connections_that_are_cut_again_and_again_cost_nothing_but_time(
    own_cluster: Cluster, registry: Registry, shop: Workshop
) -> None:
    names = [f"x{number}" for number in range(100)]
    async with (
        fresh_database(own_cluster) as url,
        opened(url, registry, shop, concurrency=4) as engine,
    ):
        runs = await start_all(engine, CHAIN, names)
        for number in range(1, 6):
            await calls(shop, number * 60)
            await own_cluster.terminate_others(url.rpartition("/")[2])

        assert await states(engine, runs) == {RunState.SUCCEEDED}
        assert await shop.things() == sorted(f"{name}-{end}" for name in names for end in "bd")
    assert max(shop.calls[f"{name}-{end}"] for name in names for end in "ac") == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mounted = tmp_path / "disk"
    mounted.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", mounted], check=True, capture_output=True
        )
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        pytest.skip(f"cannot mount a small disk: {error}")
    yield mounted
    subprocess.run(["umount", "-l", mounted], check=True)


@pytest.mark.root
async def test_runs_wait_while_the_disk_is_full_and_go_on_when_there_is_room(
    small_disk: Path, registry: Registry, shop: Workshop, said: list[EventDict]
) -> None:
    names = [f"x{number}" for number in range(50)]
    ballast = small_disk / "ballast"
    async with opened(f"sqlite+aiosqlite:///{small_disk}/flow.db", registry, shop, concurrency=4) as engine:
        gates = [shop.block(f"{name}-a") for name in names]
        runs = await start_all(engine, CHAIN, names)
        await calls(shop, 1)
        fill(ballast)
        for gate in gates:
            gate.set()
        while not any(entry["event"] == "flow.journal_failed" for entry in said):
            await asyncio.sleep(0.01)
        ended_while_full = [run for run in runs if (await engine.get(run)).state.ended]
        ballast.unlink()

        assert await states(engine, runs) == {RunState.SUCCEEDED}
        assert await shop.things() == sorted(f"{name}-{end}" for name in names for end in "bd")
    assert len(ended_while_full) < len(runs)
    assert any("disk is full" in entry.get("error", "") for entry in said)
    assert max(shop.calls[f"{name}-{end}"] for name in names for end in "ac") == 1


def fill(file: Path) -> None:
    """Until there is no byte left on its disk."""
    with file.open("wb", buffering=0) as output:
        try:
            while True:
                output.write(b"x" * 4096)
        except OSError:
            return


@pytest.mark.sqlite
async def test_of_two_engines_that_want_a_database_for_themselves_the_newer_has_it(
    url: str, registry: Registry, shop: Workshop
) -> None:
    names = [f"x{number}" for number in range(20)]
    async with opened(url, registry, shop) as old:
        gates = [shop.block(f"{name}-c") for name in names]
        runs = await start_all(old, CHAIN, names)
        await calls(shop, 60)
        async with opened(url, registry, shop) as new:
            for gate in gates:
                gate.set()

            assert await states(new, runs) == {RunState.SUCCEEDED}
            owners = {(await new.get(run)).worker for run in runs}
            with pytest.raises(FlowFault):
                await old.start(old.parse(NOTHING), {})
            histories = [[event.kind for event in await new.history(run)] for run in runs]
            assert await shop.things() == sorted(f"{name}-{end}" for name in names for end in "bd")
    assert len(owners) == 1
    assert all(kinds.count("run-succeeded") == 1 for kinds in histories)
    assert max(shop.calls[f"{name}-b"] for name in names) == 1


async def test_a_run_that_takes_all_memory_until_its_worker_is_killed_is_kept_apart(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/flow.db"

    code, output = await live(url, "start")
    lives = 1
    while code == -9:
        code, output = await live(url, "finish")
        lives += 1

    assert code == 0
    assert 3 <= lives <= 6
    assert sorted(output)[1:] == ["good succeeded "] * 10
    assert sorted(output)[0].startswith("bad needs-operator its worker died 3 times")


async def live(url: str, what: str) -> tuple[int | None, list[str]]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.flow.leak", url, what, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    output, _ = await child.communicate()
    return child.returncode, output.decode().splitlines()


# crowds


@pytest.mark.sqlite
@pytest.mark.parametrize("items", [5_000, *LARGE[:1]])
async def test_a_long_fan_out_ends_although_one_in_a_hundred_fails(
    engine: FlowEngine, shop: Workshop, items: int
) -> None:
    text = """
flow: wide
input: {names: "list[str]"}
steps:
  all: {use: w.make, each: $input.names, with: {name: $item}, parallel: 50, failures: 1%}
"""
    names = [f"n{number}" for number in range(items)]
    for name in names[::100]:
        shop.fail(name, ValueError("no"))
    tracemalloc.start()

    run = await engine.start(engine.parse(text), {"names": names})
    before, _ = tracemalloc.get_traced_memory()
    record = await engine.wait(run, 110)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert record.state is RunState.SUCCEEDED
    assert shop.most_running <= 50
    assert len(shop.made) == items - items // 100
    print(f"{(most - before) / items:.0f} bytes per item")
    assert (most - before) / items < 1024


@pytest.mark.parametrize("count", [1_500, *LARGE[1:]])
async def test_runs_beyond_the_capacity_wait_in_the_database_and_all_end(
    url: str, registry: Registry, shop: Workshop, count: int
) -> None:
    async with opened(url, registry, shop, capacity=count // 20) as engine:
        flow = engine.parse(NOTHING)
        runs = await asyncio.gather(*(engine.start(flow, {}) for _ in range(count)))
        most = 0
        while not (await engine.get(runs[-1])).state.ended or engine._roster.runs:
            most = max(most, len(engine._roster.runs))
            await asyncio.sleep(0.01)
        ended = [await engine.get(run) for run in runs]

    assert {record.state for record in ended} == {RunState.SUCCEEDED}
    assert most <= count // 20


# signals and names


async def test_a_thousand_signals_reach_a_thousand_waits_each_once(engine: FlowEngine) -> None:
    run = await engine.start(engine.parse(SIGNALS), {"numbers": list(range(1000))})

    await asyncio.gather(*(engine.signal(run, "go", number, key=str(number)) for number in range(1000)))

    record = await engine.wait(run, 30)
    assert record.state is RunState.SUCCEEDED
    assert isinstance(record.output, dict)
    assert sorted(record.output["all"]) == list(range(1000))


async def test_a_signal_of_ten_megabytes_is_a_result_like_any_other(engine: FlowEngine) -> None:
    text = (
        "flow: large\nsteps:\n  a: {wait: signal, with: {name: go}, as: str}\n"
        "  b: {use: w.measure, with: {text: $a}}\noutput: {size: $b}\n"
    )
    run = await engine.start(engine.parse(text), {})

    await engine.signal(run, "go", "x" * 10_000_000)

    assert (await engine.wait(run, 10)).output == {"size": 10_000_000}
    with pytest.raises(WrongState, match="has ended"):
        await engine.signal(run, "go", "again")


HOSTILE = [
    "nul \0",
    "half a pair \ud800",
    "\u202eright to left\u202c \u2066'\"; DROP TABLE flow_runs; --",
    "x" * 1_000_000,
    "../../etc/passwd",
    "${input.name} {{7*7}} %s",
    "\r\n\x1b[2J",
]


@pytest.mark.parametrize("word", HOSTILE, ids=["nul", "half", "rtl", "long", "path", "template", "control"])
async def test_hostile_words_are_kept_or_refused_and_harm_no_other_run(engine: FlowEngine, word: str) -> None:
    flow, waits = engine.parse(NOTHING), engine.parse(SIGNALS)
    places = [
        {"title": word},
        {"tenant": word},
        {"key": word},
        {"labels": {word: "a"}},
        {"labels": {"a": word}},
    ]
    for place in places:
        try:
            run = await engine.start(flow, {}, **place)  # type: ignore[arg-type]
        except InputError:
            continue
        assert (await engine.wait(run, 5)).state is RunState.SUCCEEDED
    waiting = await engine.start(waits, {"numbers": [1]})
    for name, key, by in ((word, "a", "b"), ("x", word, "b"), ("x", "c", word)):
        try:
            await engine.signal(waiting, name, 1, key=key, by=by)
        except InputError:
            continue
    await engine.pause(waiting, by=word)
    await engine.resume(waiting, by=word)
    await engine.signal(waiting, "go", 1)

    assert (await engine.wait(waiting, 5)).state is RunState.SUCCEEDED
    [paused] = [event for event in await engine.history(waiting) if event.kind == "run-paused"]
    assert paused.message.startswith("by ")


@pytest.mark.parametrize("title", [5, b"bytes", object()])
async def test_a_title_that_is_no_text_is_refused_and_the_journal_goes_on(
    engine: FlowEngine, title: object
) -> None:
    flow = engine.parse(NOTHING)

    with pytest.raises(InputError, match="title must be a text"):
        await asyncio.wait_for(engine.start(flow, {}, title=title), 5)  # type: ignore[arg-type]

    assert await states(engine, [await engine.start(flow, {})]) == {RunState.SUCCEEDED}
