"""Virtual time: hours pass in milliseconds, and never while the database is at work."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs
from tests.flow import workshop
from tests.flow.workshop import Workshop

from skep.flow import Database, FlowEngine, RunState
from skep.flow.testing import Stuck, VirtualTime, in_virtual_time

COUNTING = """
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000) SELECT max(i) FROM n
"""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Tracebacks of injected failures are no news, and take longer than the tests."""
    with capture_logs():
        yield


@pytest.fixture
def virtual() -> VirtualTime:
    return VirtualTime()


@in_virtual_time
async def test_hours_pass_in_no_time(virtual: VirtualTime) -> None:
    begun, wall, loop = time.monotonic(), virtual.time(), asyncio.get_running_loop()
    before = loop.time()

    await asyncio.gather(*(asyncio.sleep(3600.0 * n) for n in range(24)))

    assert loop.time() - before == pytest.approx(23 * 3600)
    assert virtual.time() - wall == pytest.approx(23 * 3600)
    assert time.monotonic() - begun < 1


@in_virtual_time
async def test_timers_fire_in_their_order(virtual: VirtualTime) -> None:
    seen: list[float] = []

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds)
        seen.append(seconds)

    await asyncio.gather(*(sleep(seconds) for seconds in (7200.0, 0.001, 60.0, 0.002)))

    assert seen == [0.001, 0.002, 60.0, 7200.0]


@in_virtual_time
async def test_a_slow_database_does_not_make_time_jump(virtual: VirtualTime, tmp_path: Path) -> None:
    database = await Database.open(f"sqlite+aiosqlite:///{tmp_path}/slow.db", durable=False)
    begun = time.monotonic()

    async with asyncio.timeout(0.01), database.read() as connection:
        counted = (await connection.execute(text(COUNTING))).scalar()
    took = time.monotonic() - begun
    await database.close()

    assert counted == 1_000_000
    assert took > 0.05


@in_virtual_time
async def test_a_query_within_an_asynchronous_generator_is_waited_for_too(
    virtual: VirtualTime, tmp_path: Path
) -> None:
    database = await Database.open(f"sqlite+aiosqlite:///{tmp_path}/slow.db", durable=False)

    async def rows() -> AsyncIterator[int | None]:
        async with database.read() as connection:
            yield (await connection.execute(text(COUNTING))).scalar()

    async with asyncio.timeout(0.01):
        found = [row async for row in rows()]
    await database.close()

    assert found == [1_000_000]


@in_virtual_time
async def test_a_thread_is_waited_for(virtual: VirtualTime) -> None:
    async with asyncio.timeout(0.001):
        await asyncio.to_thread(time.sleep, 0.05)


@in_virtual_time
async def test_a_process_is_waited_for_while_time_is_held(virtual: VirtualTime) -> None:
    async with asyncio.timeout(60):
        with virtual.held():
            child = await asyncio.create_subprocess_exec("sleep", "0.05")
            code = await child.wait()

    assert code == 0


@in_virtual_time
async def test_the_wall_clock_may_jump_and_timers_do_not_notice(virtual: VirtualTime) -> None:
    wall, loop = virtual.time(), asyncio.get_running_loop().time()

    virtual.shift(-3600)
    await asyncio.sleep(10)

    assert virtual.time() - wall == pytest.approx(10 - 3600)
    assert asyncio.get_running_loop().time() - loop == pytest.approx(10)


def test_waiting_for_nothing_is_found_out(virtual: VirtualTime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skep.flow.testing.virtual_time.PATIENCE", 0.05)

    async def forever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Stuck, match="forever"):
        virtual.run(forever())


@in_virtual_time
async def test_a_step_retries_for_hours(virtual: VirtualTime, tmp_path: Path) -> None:
    shop, registry = Workshop(), workshop.registry()
    shop.fail("a", OSError("not yet"), times=20)
    database = await Database.open(f"sqlite+aiosqlite:///{tmp_path}/flow.db", durable=False)
    await shop.attach(database)
    begun = time.monotonic()

    async with FlowEngine(
        database, registry, shop.environment, clock=virtual.time, retry_delay=lambda tries: 60.0 * tries
    ) as engine:
        flow = engine.parse("flow: f\nsteps: {a: {use: w.make, with: {name: a}, retry: 20}}\n")
        record = await engine.wait(await engine.start(flow, {}))
    await database.close()

    assert record.state is RunState.SUCCEEDED
    assert record.finished is not None
    assert record.started is not None
    assert (record.finished - record.started).total_seconds() >= 60 * sum(range(1, 21))
    assert time.monotonic() - begun < 5
