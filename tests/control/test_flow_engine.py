"""What goes on around the flow engine of an installation without anybody asking for it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.control.installation import Clock

from skep.bus.stamps import Stamp, current_stamp
from skep.control.runs.flow_engine import FlowRoom, flow_room
from skep.flow import Context, Database, FlowEngine, Registry, RunState, step
from skep.flow.storage import archive
from skep.flow.storage.retention_policy import DAY, RetentionPolicy


@step
async def ring(cx: Context[object]) -> None:
    """Nothing is heard."""


@step
async def sign(cx: Context[object]) -> None:
    """Fails unless what it asks of hosts would bear its name."""
    own = Stamp(run=cx.run, step=cx.step, epoch=cx.epoch, attempt=cx.attempt)
    if current_stamp() != own:
        raise RuntimeError(f"{current_stamp()} is not {own}")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await Database.open(f"sqlite+aiosqlite:///{tmp_path / 'skep.db'}", durable=False)
    await FlowEngine.create_tables_in(opened)
    yield opened
    await opened.close()


@asynccontextmanager
async def room(database: Database, clock: Clock, folder: Path) -> AsyncIterator[FlowRoom]:
    registry = Registry()
    registry.add_step(ring, "bell.ring")
    registry.add_step(sign, "letter.sign")
    registry.add_flow("flow: write\nsteps:\n  letter: {use: letter.sign}\n", "write.yaml")
    registry.add_flow("flow: wake\nsteps:\n  bell: {use: bell.ring}\n", "wake.yaml")
    async with flow_room(
        *(database, registry, lambda _route: None, lambda _run: None),
        cache=folder,
        retention=RetentionPolicy(keep=10 * DAY),
        grace=0,
        clock=clock,
    ) as opened:
        yield opened


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """It happens in the background, soon."""
    async with asyncio.timeout(10):
        while not await holds():
            await asyncio.sleep(0.02)


async def test_what_was_due_while_nobody_was_there_is_started_when_somebody_is(
    database: Database, tmp_path: Path
) -> None:
    clock = Clock()
    async with room(database, clock, tmp_path) as first:
        await first.schedules.put("morning", "wake", {}, "0 6 * * *")
    clock.time += DAY

    async with room(database, clock, tmp_path) as second:

        async def rung() -> bool:
            return [run.state for run in await second.flows.list()] == [RunState.SUCCEEDED]

        await until(rung)


async def test_what_ended_long_ago_is_archived(database: Database, tmp_path: Path) -> None:
    clock = Clock()
    async with room(database, clock, tmp_path) as first:
        run = await first.flows.start("wake", {})
        await first.flows.wait(run, 10)
    clock.time += 11 * DAY

    async with room(database, clock, tmp_path) as second:

        async def archived() -> bool:
            async with database.read() as connection:
                return await archive.is_archived(connection, run)

        await until(archived)
        assert await second.flows.list() == []


async def test_metrics_count_from_the_beginning(database: Database, tmp_path: Path) -> None:
    async with room(database, Clock(), tmp_path) as opened:
        run = await opened.flows.start("wake", {})
        await opened.flows.wait(run, 10)

        text = (await opened.metrics.render()).decode()

    assert 'skep_flow_runs_started_total{flow="wake"} 1.0' in text
    assert 'skep_flow_steps_total{flow="wake",outcome="succeeded",step="bell.ring"} 1.0' in text


async def test_a_step_asks_hosts_in_its_own_name(database: Database, tmp_path: Path) -> None:
    async with room(database, Clock(), tmp_path) as opened:
        run = await opened.flows.start("write", {})

        record = await opened.flows.wait(run, 10)

    assert (record.state, record.error) == (RunState.SUCCEEDED, "")
    assert current_stamp() is None
