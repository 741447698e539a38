"""Clocks that jump by ten years: what lasts so long lasts so long, and what is to come at a time comes then.

Durations (waits `for`, the timeouts of waits and of steps, retries) go by time that passes; over a restart
the clock says how much has passed meanwhile, and a wait never lasts longer than its duration again.
Moments (waits `until`, deadlines of runs) go by the clock, which is looked at once an hour at least.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs
from tests.flow import workshop
from tests.flow.workshop import Workshop

from skep.flow import Database, FlowEngine, RunState
from skep.flow.storage import shared
from skep.flow.testing import VirtualTime, in_virtual_time

TEN_YEARS = 10 * 365 * 86400.0
JUMPS = pytest.mark.parametrize("jump", [TEN_YEARS, -TEN_YEARS], ids=["forward", "back"])
FOR = "flow: f\nsteps: {w: {wait: for, with: {duration: 8h}}}\n"
TIMEOUT = "flow: f\nsteps: {w: {wait: signal, with: {name: go}, timeout: 8h}}\n"
UNTIL = "flow: f\ninput: {at: float}\nsteps: {w: {wait: until, with: {time: $input.at}}}\n"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with capture_logs():
        yield


@pytest.fixture
def virtual() -> VirtualTime:
    return VirtualTime()


@asynccontextmanager
async def opened(virtual: VirtualTime, directory: Path) -> AsyncIterator[FlowEngine]:
    async with AsyncExitStack() as stack:
        database = await Database.open(f"sqlite+aiosqlite:///{directory}/flow.db", durable=False)
        stack.push_async_callback(database.close)
        shop = Workshop()
        await shop.attach(database)
        engine = FlowEngine(database, workshop.registry(), shop.environment, clock=virtual.time, grace=0)
        yield await stack.enter_async_context(engine)


@JUMPS
@pytest.mark.parametrize(("flow", "end"), [(FOR, RunState.SUCCEEDED), (TIMEOUT, RunState.FAILED)])
@in_virtual_time
async def test_what_waits_for_a_duration_waits_as_long_whatever_the_clock_says(
    virtual: VirtualTime, tmp_path: Path, flow: str, end: RunState, jump: float
) -> None:
    async with opened(virtual, tmp_path) as engine:
        run = await engine.start(engine.parse(flow), {})
        begun = virtual.monotonic()
        await asyncio.sleep(3600)
        virtual.shift(jump)

        record = await engine.wait(run, 86400)

        assert record.state is end
        assert virtual.monotonic() - begun == pytest.approx(8 * 3600, abs=5)


@JUMPS
@in_virtual_time
async def test_after_a_restart_a_wait_lasts_no_longer_than_its_duration_however_the_clock_was_set(
    virtual: VirtualTime, tmp_path: Path, jump: float
) -> None:
    async with opened(virtual, tmp_path) as engine:
        run = await engine.start(engine.parse(FOR), {})
        await asyncio.sleep(3600)
    virtual.shift(jump)
    begun = virtual.monotonic()

    async with opened(virtual, tmp_path) as engine:
        record = await engine.wait(run, 86400)

    assert record.state is RunState.SUCCEEDED
    assert virtual.monotonic() - begun == pytest.approx(0 if jump > 0 else 8 * 3600, abs=5)


@in_virtual_time
async def test_a_time_that_is_waited_for_comes_within_an_hour_of_the_clock_being_set_to_it(
    virtual: VirtualTime, tmp_path: Path
) -> None:
    async with opened(virtual, tmp_path) as engine:
        run = await engine.start(engine.parse(UNTIL), {"at": virtual.time() + TEN_YEARS})
        begun = virtual.monotonic()
        await asyncio.sleep(60)
        virtual.shift(TEN_YEARS)

        record = await engine.wait(run, 86400)

        assert record.state is RunState.SUCCEEDED
        assert virtual.monotonic() - begun <= 3605


@in_virtual_time
async def test_a_time_that_is_waited_for_is_the_clocks_also_after_it_was_put_back(
    virtual: VirtualTime, tmp_path: Path
) -> None:
    async with opened(virtual, tmp_path) as engine:
        at = virtual.time() + 3600
        run = await engine.start(engine.parse(UNTIL), {"at": at})
        await asyncio.sleep(60)
        virtual.shift(-86400)

        record = await engine.wait(run, 200_000)

        assert record.state is RunState.SUCCEEDED
        assert virtual.time() == pytest.approx(at, abs=5)


@JUMPS
@in_virtual_time
async def test_a_deadline_is_a_time_of_the_clock(virtual: VirtualTime, tmp_path: Path, jump: float) -> None:
    async with opened(virtual, tmp_path) as engine:
        deadline = datetime.fromtimestamp(virtual.time(), UTC) + timedelta(hours=10)
        run = await engine.start(engine.parse(FOR), {}, deadline=deadline)
        await asyncio.sleep(60)
        virtual.shift(jump)

        record = await engine.wait(run, 86400)

        assert record.state is (RunState.FAILED if jump > 0 else RunState.SUCCEEDED)
        if jump > 0:
            assert record.error == "the deadline of the run has passed"


@JUMPS
async def test_runs_of_two_workers_all_end_once_though_the_databases_clock_jumps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    url, shop, offset = f"sqlite+aiosqlite:///{tmp_path}/flow.db", Workshop(), [0.0]
    clock = SimpleNamespace(time=lambda: time.time() + offset[0])
    monkeypatch.setattr(shared, "time", clock)
    text = """
flow: chain
input: {name: str}
steps:
  a: {use: w.make, with: {name: "${input.name}-a"}}
  w: {wait: for, with: {duration: 500ms}, after: [a]}
  b: {use: w.enlist, with: {name: "${input.name}-b"}, after: [w]}
  c: {use: w.make, with: {name: "${input.name}-c"}, after: [b]}
"""
    databases = [await Database.open(url, durable=False) for _ in range(2)]
    for database in databases:
        await shop.attach(database)
    engines = [
        FlowEngine(database, workshop.registry(), shop.environment, shared=True, lease=1.0, grace=0)
        for database in databases
    ]
    async with engines[0] as one, engines[1] as two:
        runs = [
            await engine.start(engine.parse(text), {"name": f"x{number}-{side}"})
            for number in range(10)
            for side, engine in enumerate((one, two))
        ]
        offset[0] = jump

        ended = [await one.wait(run, 30) for run in runs]

        assert {record.state for record in ended} == {RunState.SUCCEEDED}
        assert len(await shop.things()) == len(runs)
        for run in runs:
            kinds = [event.kind for event in await two.history(run)]
            assert kinds.count("run-succeeded") == 1
    for database in databases:
        await database.close()
