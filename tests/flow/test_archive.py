"""Runs that ended long ago move into the archive; nothing that goes on is touched."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import zstandard
from sqlalchemy import func, insert, select
from tests.flow import workshop
from tests.flow.workshop import Workshop

from skep.flow import (
    Database,
    FlowEngine,
    Registry,
    RunFilter,
    RunId,
    RunState,
    UnknownRun,
    WrongState,
)
from skep.flow.storage import tables
from skep.flow.storage.archive import ArchivedRun
from skep.flow.storage.retention import Archivist
from skep.flow.storage.retention_policy import DAY, RetentionPolicy
from skep.flow.testing import CrashingDatabase

WORK = """
flow: work
input: {names: "list[str]"}
steps:
  first: {use: w.make, with: {name: a}}
  roll: {use: w.make, each: $input.names, with: {name: $item}, after: [first]}
  told: {wait: signal, with: {name: go}, as: str, after: [roll]}
  last: {use: w.make, with: {name: z}, after: [told]}
output: {said: $told}
"""
LARGE = """
flow: large
input: {names: "list[str]"}
steps:
  roll: {use: w.leave, each: $input.names, with: {name: $item}}
"""
FAILING = """
flow: failing
input: {}
on_failure: keep
steps:
  first: {use: w.make, with: {name: a}}
  last: {use: w.make, with: {name: bad}, after: [first]}
"""
BIG = """
flow: big
input: {}
steps:
  big: {use: w.big, with: {size: 100000}}
"""

FIRST_VERSION = b"""
{"run": {"id": "r1", "flow": "work", "title": "Work", "tenant": "acme", "labels": {"app": "shop"},
  "state": "failed", "done": 1, "total": 2, "input": {"n": 1}, "output": {}, "error": "step last: no",
  "priority": 2, "worker": "", "deadline": null, "parent": "", "created": "2027-01-15T08:00:00Z",
  "started": "2027-01-15T08:00:00Z",
  "finished": "2027-01-15T08:00:09Z"},
 "steps": [
  {"name": "first", "use": "w.make", "state": "succeeded", "after": [], "attempts": 1,
   "started": "2027-01-15T08:00:00Z", "finished": "2027-01-15T08:00:04Z", "message": ""},
  {"name": "last", "use": "w.make", "state": "failed", "after": ["first"], "attempts": 2,
   "started": "2027-01-15T08:00:04Z", "finished": "2027-01-15T08:00:09Z", "message": "no"}],
 "events": [{"sequence": 1, "run": "r1", "step": "", "kind": "run-created", "at": "2027-01-15T08:00:00Z",
   "message": ""}],
 "signals": [{"name": "go", "value": "now", "by": "ann", "at": 1800000001.0, "step": "last"}]}
"""


class Clock:
    """Seconds since 1970, and the days that tests let pass."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def engine(
    database: Database, registry: Registry, shop: Workshop, clock: Clock
) -> AsyncIterator[FlowEngine]:
    async with FlowEngine(database, registry, shop.environment, clock=clock, grace=0.1) as engine:
        yield engine


@pytest.fixture
def archivist(database: Database, clock: Clock) -> Archivist:
    return Archivist(database, RetentionPolicy(), clock)


async def run_work(engine: FlowEngine, tenant: str = "acme") -> RunId:
    run = await engine.start(engine.parse(WORK), {"names": ["x", "y"]}, tenant=tenant, labels={"app": "shop"})
    await engine.signal(run, "go", "now", by="ann")
    assert (await engine.wait(run, 20)).state is RunState.SUCCEEDED
    return run


async def seen(engine: FlowEngine, run: RunId) -> tuple[object, ...]:
    return await engine.get(run), tuple(await engine.steps(run)), tuple(await engine.history(run))


def contents(archived: ArchivedRun) -> tuple[object, ...]:
    return archived.run, archived.steps, archived.events


async def count(database: Database) -> dict[str, int]:
    """Rows by table, without those of workers."""
    counted = (tables.runs, tables.steps, tables.events, tables.signals, tables.labels, tables.blobs)
    async with database.read() as connection:
        return {
            table.name: (await connection.execute(select(func.count()).select_from(table))).scalar() or 0
            for table in (*counted, tables.definitions)
        }


async def test_a_run_that_ended_long_ago_is_read_back_as_it_was(
    engine: FlowEngine, archivist: Archivist, clock: Clock, database: Database
) -> None:
    run = await run_work(engine)
    before = await seen(engine, run)
    clock.now += 31 * DAY

    archived = await archivist.look()

    found = await archivist.find(run)
    assert archived == 1
    assert contents(found) == before
    assert [(signal.name, signal.value, signal.by, signal.step) for signal in found.signals] == [
        ("go", "now", "ann", "told")
    ]
    with pytest.raises(UnknownRun):
        await engine.get(run)
    assert set((await count(database)).values()) == {0}


async def test_what_ended_a_short_while_ago_or_goes_on_is_left_alone(
    engine: FlowEngine, archivist: Archivist, clock: Clock, shop: Workshop
) -> None:
    goes_on = await engine.start(engine.parse(WORK), {"names": ["x"]})
    clock.now += 400 * DAY
    recent = await run_work(engine)
    clock.now += 29 * DAY

    assert await archivist.look() == 0

    assert [run.id for run in await engine.list()] == [recent, goes_on]
    await engine.signal(goes_on, "go", "on")
    assert (await engine.wait(goes_on, 20)).state is RunState.SUCCEEDED


async def test_runs_that_failed_are_kept_longer(
    engine: FlowEngine, archivist: Archivist, clock: Clock, shop: Workshop
) -> None:
    shop.fail("bad", RuntimeError("no"))
    run = await engine.start(engine.parse(FAILING), {})
    assert (await engine.wait(run, 20)).state is RunState.FAILED

    clock.now += 89 * DAY
    early = await archivist.look()
    clock.now += 2 * DAY
    late = await archivist.look()

    assert (early, late) == (0, 1)


async def test_a_large_run_goes_piece_by_piece(
    engine: FlowEngine, archivist: Archivist, clock: Clock, database: Database
) -> None:
    run = await engine.start(engine.parse(LARGE), {"names": [str(n) for n in range(700)]})
    await engine.wait(run, 60)
    before = await seen(engine, run)
    clock.now += 31 * DAY
    archivist.pace.rows = 100
    commits = database.totals.commits

    await archivist.look()

    assert database.totals.commits - commits >= 4
    assert contents(await archivist.find(run)) == before
    assert set((await count(database)).values()) == {0}


@pytest.mark.sqlite
@pytest.mark.parametrize("rows", [5, 500], ids=["piece by piece", "whole"])
@pytest.mark.parametrize("point", range(12))
async def test_wherever_it_dies_the_next_one_ends_it(
    url: str, tmp_path: Path, shop: Workshop, clock: Clock, point: int, rows: int
) -> None:
    database = await CrashingDatabase.open(url, durable=False)
    async with FlowEngine(database, workshop.registry(), shop.environment, clock=clock) as engine:
        run = await run_work(engine)
        before = await seen(engine, run)
    clock.now += 31 * DAY
    archivist = Archivist(database, RetentionPolicy(), clock)
    archivist.pace.rows = rows
    crashed = database.arm(point)
    looking = asyncio.create_task(archivist.look())
    dying = asyncio.create_task(crashed.wait())
    await asyncio.wait([looking, dying], return_when=asyncio.FIRST_COMPLETED)
    for task in (looking, dying):
        task.cancel()
    await asyncio.wait([looking, dying])
    await database.abandon()

    again = await Database.open(url, durable=False)
    archivist = Archivist(again, RetentionPolicy(), clock)
    await archivist.look()

    assert contents(await archivist.find(run)) == before
    assert set((await count(again)).values()) == {0}
    await again.close()


async def test_a_run_whose_rows_are_going_cannot_be_tried_again(
    engine: FlowEngine, archivist: Archivist, clock: Clock, shop: Workshop, database: Database
) -> None:
    shop.fail("bad", RuntimeError("no"))
    run = await engine.start(engine.parse(FAILING), {})
    await engine.wait(run, 20)
    clock.now += 91 * DAY
    archivist.pace.rows = 2
    (due,) = await archivist._due()
    archivist._remove_pieces = _nothing  # type: ignore[method-assign]  # it dies before they go
    await archivist._archive([due])

    with pytest.raises(WrongState, match="has been archived"):
        await engine.retry(run)


async def _nothing(run: RunId) -> None:
    """Removes nothing."""


async def test_a_run_that_is_tried_again_meanwhile_is_not_archived(
    engine: FlowEngine, archivist: Archivist, clock: Clock, shop: Workshop
) -> None:
    shop.fail("bad", RuntimeError("no"), times=1)
    run = await engine.start(engine.parse(FAILING), {})
    await engine.wait(run, 20)
    clock.now += 91 * DAY
    due = await archivist._due()
    await engine.retry(run)
    await engine.wait(run, 20)

    assert await archivist._archive(due) == 0

    assert (await engine.get(run)).state is RunState.SUCCEEDED


async def test_large_results_go_once_nobody_refers_to_them(
    engine: FlowEngine, archivist: Archivist, clock: Clock, database: Database
) -> None:
    run = await engine.start(engine.parse(BIG), {})
    await engine.wait(run, 20)
    clock.now += 3 * DAY
    await archivist.look()
    kept = await count(database)

    clock.now += 31 * DAY
    await archivist.look()

    assert (kept["flow_blobs"], kept["flow_definitions"]) == (1, 1)
    assert set((await count(database)).values()) == {0}


async def test_a_flow_whose_definition_was_swept_away_can_be_started_again(
    engine: FlowEngine, archivist: Archivist, clock: Clock
) -> None:
    await run_work(engine)
    clock.now += 40 * DAY
    await archivist.look()

    assert (await engine.get(await run_work(engine))).state is RunState.SUCCEEDED


async def test_the_archive_is_listed_and_forgets_in_the_end(
    engine: FlowEngine, archivist: Archivist, clock: Clock
) -> None:
    runs = [await run_work(engine, tenant) for tenant in ("a", "b", "a")]
    clock.now += 31 * DAY
    await archivist.look()

    everything = [run.id for run in await archivist.list()]
    of_a = [run.id for run in await archivist.list(RunFilter(tenant="a"), limit=1)]
    older = [run.id for run in await archivist.list(RunFilter(tenant="a"), before=runs[2])]
    clock.now += 365 * DAY
    await archivist.look()

    assert everything == runs[::-1]
    assert (of_a, older) == ([runs[2]], [runs[0]])
    assert await archivist.list(RunFilter(states=(RunState.SUCCEEDED,))) == []
    with pytest.raises(UnknownRun, match="in the archive"):
        await archivist.find(runs[0])


async def test_two_archivists_do_not_get_in_each_others_way(
    engine: FlowEngine, archivist: Archivist, clock: Clock, database: Database
) -> None:
    for _ in range(6):
        await run_work(engine)
    clock.now += 31 * DAY
    other = Archivist(database, RetentionPolicy(), clock)
    other.pace.rows = 3

    archived = await asyncio.gather(archivist.look(), other.look())

    assert sum(archived) >= 6
    assert len(await archivist.list()) == 6
    assert set((await count(database)).values()) == {0}


async def test_what_was_archived_by_the_first_version_can_be_read_for_ever(
    database: Database, engine: FlowEngine
) -> None:
    """Years later records have more fields: give those defaults."""
    content = zstandard.ZstdCompressor().compress(FIRST_VERSION)
    row = {"run": "r1", "tenant": "acme", "flow": "work", "title": "Work", "state": "failed"}
    times = {"created": 1.8e9, "finished": 1.8e9 + 9}
    await database.write(
        lambda connection: connection.execute(insert(tables.archive).values(**row, **times, content=content))
    )

    found = await Archivist(database, RetentionPolicy()).find(RunId("r1"))

    assert (found.run.tenant, found.run.state, found.run.error) == ("acme", RunState.FAILED, "step last: no")
    assert [(step.name, step.state.value, step.after) for step in found.steps] == [
        ("first", "succeeded", ()),
        ("last", "failed", ("first",)),
    ]
    assert [(event.sequence, event.kind) for event in found.events] == [(1, "run-created")]
    assert [(signal.name, signal.value, signal.step) for signal in found.signals] == [("go", "now", "last")]
