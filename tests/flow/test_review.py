"""Corners of the engine's core: failures within failures, deaths at odd moments, orders at the wrong time."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text as sql
from tests.flow.test_waits import until
from tests.flow.workshop import Workshop

from skep.flow import Context, Database, FlowEngine, Registry, RunId, RunState, WrongState, step
from skep.flow.errors import FlowFault
from skep.flow.execution import loading, starting

pytestmark = pytest.mark.sqlite


@asynccontextmanager
async def opened(
    database: Database, registry: Registry, shop: Workshop, *, delay: float = 0.001, concurrency: int = 64
) -> AsyncIterator[FlowEngine]:
    await shop.attach(database)
    async with FlowEngine(
        database,
        registry,
        shop.environment,
        retry_delay=lambda _tries: delay,
        grace=0,
        concurrency=concurrency,
    ) as engine:
        yield engine


async def called(shop: Workshop, *names: str) -> None:
    async with asyncio.timeout(5):
        while not all(shop.calls[name] for name in names):
            await asyncio.sleep(0.001)


async def happened(engine: FlowEngine, run: RunId, kind: str, step: str = "") -> None:
    async with asyncio.timeout(5):
        async for event in engine.follow(run):
            if event.kind == kind and (not step or event.step == step):
                return
    raise AssertionError(f"the run ended without {kind} {step}")


# failures of items within failures

ITEMS = """
flow: items
input: {names: "list[str]"}
steps:
  all: {flow: part, each: $input.names, with: {name: $item}, failures: 1}
  side: {use: w.make, with: {name: side}}
"""
PART = """
flow: part
input: {name: str}
steps:
  a: {use: w.make, with: {name: "${input.name}-a"}}
  b: {use: w.make, with: {name: "${input.name}-b"}, after: [a]}
"""


async def test_a_run_ends_that_is_cancelled_while_the_undo_of_an_item_waits_to_be_tried_again(
    database: Database, registry: Registry, shop: Workshop
) -> None:
    registry.add_documents({"part.yaml": PART})
    async with opened(database, registry, shop, delay=0.3) as engine:
        shop.fail("y-b", ValueError("no"))
        shop.fail("undo y-b", ValueError("not now"), times=1)
        shop.block("side")
        run = await engine.start(engine.parse(ITEMS), {"names": ["x", "y"]})
        await happened(engine, run, "undo-retrying")

        await engine.cancel(run)

        assert (await engine.wait(run, 5)).state is RunState.CANCELLED
    assert shop.made == set()


NESTED = """
flow: nested
input: {rows: "list[list[str]]"}
steps:
  row: {flow: row, each: $input.rows, with: {cells: $item, row: $index}, OUTER}
  last: {use: w.make, with: {name: last}, after: [row]}
"""
ROW = """
flow: row
input: {cells: "list[str]", row: int}
steps:
  first: {use: w.make, with: {name: "first-${input.row}"}}
  side: {use: w.make, with: {name: "side-${input.row}"}, after: [first]}
  cell: {use: w.make, each: $input.cells, with: {name: $item}, after: [first], INNER}
"""


def nested(registry: Registry, engine: FlowEngine, outer: str, inner: str) -> object:
    row = ROW.replace(", INNER", inner and f", {inner}")
    registry.add_documents({"row.yaml": row})
    return engine.parse(NESTED.replace(", OUTER", outer and f", {outer}"))


async def test_an_item_is_undone_though_the_undo_of_one_within_it_waits_to_be_tried_again(
    database: Database, registry: Registry, shop: Workshop
) -> None:
    async with opened(database, registry, shop, delay=0.3) as engine:
        flow = nested(registry, engine, "failures: 1", "failures: 1")
        shop.fail("a", ValueError("no"))
        shop.fail("undo a", ValueError("not now"), times=1)
        side = asyncio.Event()

        async def fail_later() -> None:
            await side.wait()
            raise ValueError("no")

        shop.faults["side-0"] = fail_later
        run = await engine.start(flow, {"rows": [["a", "b"], ["c"]]})  # type: ignore[arg-type]
        await happened(engine, run, "undo-retrying")
        side.set()

        assert (await engine.wait(run, 5)).state is RunState.SUCCEEDED
    assert shop.made == {"first-1", "side-1", "c", "last"}


async def test_after_a_death_an_item_is_given_up_only_if_it_was(
    database: Database, registry: Registry, shop: Workshop
) -> None:
    async with opened(database, registry, shop) as engine:
        flow = nested(registry, engine, "", "failures: 1")
        shop.fail("a", ValueError("no"))
        shop.block("b")
        run = await engine.start(flow, {"rows": [["a", "b"]]})  # type: ignore[arg-type]
        await happened(engine, run, "undone", "row[0].cell[0]")
        await called(shop, "b")
        await engine.abandon()
    shop.faults.clear()

    async with opened(database, registry, shop) as engine:
        record = await engine.wait(run, 5)

    assert record.state is RunState.SUCCEEDED
    assert shop.made == {"first-0", "side-0", "b", "last"}
    assert not [name for name in shop.calls if name.startswith("undo first")]


async def test_after_a_death_an_item_that_is_being_undone_does_not_end_twice(
    database: Database, registry: Registry, shop: Workshop
) -> None:
    async with opened(database, registry, shop) as engine:
        flow = nested(registry, engine, "failures: 1", "")
        shop.fail("a", ValueError("no"))
        shop.block("undo first-0")
        shop.block("c")
        run = await engine.start(flow, {"rows": [["a"], ["c"]]})  # type: ignore[arg-type]
        await called(shop, "undo first-0", "c")
        await engine.abandon()
    shop.faults.clear()
    gate = shop.block("c")

    async with opened(database, registry, shop) as engine:
        await called(shop, "c")
        await happened(engine, run, "undone", "row[0].first")
        await asyncio.sleep(0.05)
        assert (await engine.get(run)).state is RunState.RUNNING
        gate.set()
        assert (await engine.wait(run, 5)).state is RunState.SUCCEEDED

    assert shop.made == {"first-1", "side-1", "c", "last"}


PARALLEL = """
flow: parallel
input: {names: "list[str]"}
steps:
  all: {use: w.make, each: $input.names, with: {name: $item}, parallel: 1, failures: 1}
  last: {use: w.make, with: {name: last}, after: [all]}
"""


async def test_after_a_death_on_the_way_back_every_item_is_undone_however_few_go_at_once(
    database: Database, registry: Registry, shop: Workshop
) -> None:
    names = ["a", "b", "c", "d"]
    async with opened(database, registry, shop) as engine:
        shop.fail("a", ValueError("no"))
        shop.fail("last", ValueError("no"))
        for name in "cd":
            shop.block(f"undo {name}")
        run = await engine.start(engine.parse(PARALLEL), {"names": names})
        await happened(engine, run, "undone", "all[1]")
        await called(shop, "undo c", "undo d")
        await engine.abandon()
    shop.faults.clear()

    async with opened(database, registry, shop) as engine:
        assert (await engine.wait(run, 5)).state is RunState.FAILED

    assert shop.made == set()


KEPT = """
flow: kept
input: {names: "list[str]"}
on_failure: keep
steps:
  all: {use: w.enlist, each: $input.names, with: {name: $item}}
"""


async def test_items_that_were_kept_are_not_done_again(
    database: Database, registry: Registry, shop: Workshop
) -> None:
    async with opened(database, registry, shop) as engine:
        shop.fail("b", ValueError("no"))
        run = await engine.start(engine.parse(KEPT), {"names": ["a", "b", "c"]})
        assert (await engine.wait(run, 5)).state is RunState.FAILED
        shop.faults.clear()

        await engine.retry(run)

        record = await engine.wait(run, 5)
        assert record.error == ""
        assert record.state is RunState.SUCCEEDED
    assert {name: shop.calls[name] for name in "abc"} == {"a": 1, "b": 2, "c": 1}


# what is decided is durable

ASKS = """
flow: asks
on_failure: undo
steps:
  a: {use: w.make, with: {name: a}}
  b: {use: w.make, with: {name: b}, after: [a]}
  c: {use: w.make, with: {name: c}, after: [b]}
"""


async def test_a_failure_of_a_paused_run_survives_a_death(
    database: Database, registry: Registry, shop: Workshop
) -> None:
    async with opened(database, registry, shop) as engine:
        go = asyncio.Event()

        async def fail() -> None:
            await go.wait()
            raise ValueError("no")

        shop.faults["b"] = fail
        run = await engine.start(engine.parse(ASKS), {})
        await called(shop, "b")
        await engine.pause(run)
        go.set()
        await happened(engine, run, "failed", "b")
        await engine.abandon()

    async with opened(database, registry, shop) as engine:
        await engine.resume(run)
        record = await engine.wait(run, 5)

    assert (record.state, record.error) == (RunState.FAILED, "step b: no")
    assert shop.made == set()


LONG = """
flow: long
steps:
  a: {use: w.make, with: {name: a}}
  b: {use: w.make, with: {name: b}, after: [a]}
  c: {use: w.make, with: {name: c}, after: [b]}
"""


async def crashes_of(database: Database, run: RunId) -> int:
    async with database.read() as connection:
        found = await connection.execute(sql("SELECT crashes FROM flow_runs WHERE id = :run"), {"run": run})
        return int(found.scalar_one())


async def test_a_run_that_gets_on_after_a_death_is_no_suspect_any_more(
    database: Database, registry: Registry, shop: Workshop
) -> None:
    async with opened(database, registry, shop) as engine:
        shop.block("b")
        run = await engine.start(engine.parse(LONG), {})
        await called(shop, "b")
        await engine.abandon()
    shop.faults.clear()

    async with opened(database, registry, shop) as engine:
        shop.block("c")
        await called(shop, "c")
        await engine.abandon()

    assert await crashes_of(database, run) == 0


ONCE_KEPT = """
flow: once
on_failure: keep
steps:
  l: {use: w.launch, with: {name: l}}
  bad: {use: w.make, with: {name: bad}}
"""


async def test_what_may_have_had_its_effect_is_asked_about_also_after_a_death_on_the_way_to_the_end(
    database: Database, registry: Registry, shop: Workshop
) -> None:
    async with opened(database, registry, shop) as engine:
        shop.fail("bad", ValueError("no"))
        shop.block("l")
        run = await engine.start(engine.parse(ONCE_KEPT), {})
        await called(shop, "l")
        await happened(engine, run, "run-stopping")
        await engine.pause(run)  # durable
        await engine.abandon()
    shop.faults.clear()

    async with opened(database, registry, shop) as engine:
        await engine.resume(run)
        record = await engine.get(run)
        assert record.state is RunState.NEEDS_OPERATOR
        await engine.resolve(run, "l", "skip")
        assert (await engine.wait(run, 5)).state is RunState.FAILED

    assert shop.calls["l"] == 1


# nothing begins once it is decided that nothing shall

BEGINS = """
flow: begins
input: {when: str}
steps:
  a: {use: w.make, with: {name: a}}
  early: {wait: signal, with: {name: go}, timeout: 1h, after: [a]}
  bad: {wait: until, with: {time: $input.when}, after: [a]}
  late: {use: w.make, with: {name: late}, after: [a]}
"""


async def test_a_failure_to_begin_one_step_keeps_the_others_from_beginning(
    database: Database, registry: Registry, shop: Workshop
) -> None:
    async with opened(database, registry, shop) as engine:
        run = await engine.start(engine.parse(BEGINS), {"when": "soon"})

        assert (await engine.wait(run, 5)).state is RunState.FAILED
    assert shop.calls["late"] == 0
    assert shop.made == set()


class SlowDatabase(Database):
    """Commits when it is told to."""

    gate: asyncio.Event | None = None
    asked: asyncio.Event

    async def _commit(self, commit: Callable[[], object]) -> None:
        if self.gate is not None:
            self.asked.set()
            await self.gate.wait()
        await commit()  # type: ignore[misc]

    def hold(self) -> asyncio.Event:
        self.asked = asyncio.Event()
        self.gate = asyncio.Event()
        return self.gate


@pytest.fixture
async def slow(url: str) -> AsyncIterator[SlowDatabase]:
    database = await SlowDatabase.open(url, durable=False)
    yield database
    await database.close()


ONCE = """
flow: once
steps:
  a: {use: w.make, with: {name: a}}
  l: {use: w.launch, with: {name: l}, after: [a]}
"""


async def test_a_step_is_not_called_any_more_once_the_run_is_cancelled(
    slow: SlowDatabase, registry: Registry, shop: Workshop
) -> None:
    async with opened(slow, registry, shop) as engine:
        a = shop.block("a")
        run = await engine.start(engine.parse(ONCE), {})
        await called(shop, "a")
        gate = slow.hold()
        a.set()
        await slow.asked.wait()
        cancelling = asyncio.create_task(engine.cancel(run))
        await asyncio.sleep(0.02)
        gate.set()
        await cancelling

        assert (await engine.wait(run, 5)).state is RunState.CANCELLED
    assert shop.calls["l"] == 0
    assert shop.made == set()


async def test_a_run_that_has_ended_takes_no_orders_even_before_that_is_durable(
    slow: SlowDatabase, registry: Registry, shop: Workshop
) -> None:
    async with opened(slow, registry, shop) as engine:
        c = shop.block("c")
        run = await engine.start(engine.parse(LONG), {})
        await called(shop, "c")
        gate = slow.hold()
        c.set()
        await slow.asked.wait()
        cancelling = asyncio.create_task(engine.cancel(run))
        await asyncio.sleep(0.02)
        gate.set()

        with pytest.raises(WrongState):
            await cancelling
        record = await engine.wait(run, 5)
    assert (record.state, record.error) == (RunState.SUCCEEDED, "")


async def test_cancelling_again_does_not_interrupt_the_undo(
    database: Database, registry: Registry, shop: Workshop
) -> None:
    async with opened(database, registry, shop) as engine:
        shop.block("c")
        undo = shop.block("undo a")
        run = await engine.start(engine.parse(LONG), {})
        await called(shop, "c")
        await engine.cancel(run)
        await called(shop, "undo a")

        for _ in range(6):
            await engine.cancel(run)
            await asyncio.sleep(0.005)
        undo.set()

        assert (await engine.wait(run, 5)).state is RunState.CANCELLED
    assert shop.calls["undo a"] == 1


# runs that have not begun

LOCKED = "flow: locked\nlock: [one]\n" + LONG.split("\n", 2)[2]


async def test_a_signal_to_a_run_that_waits_for_its_lock_does_not_begin_it(
    database: Database, registry: Registry, shop: Workshop
) -> None:
    async with opened(database, registry, shop) as engine:
        gate = shop.block("a")
        first = await engine.start(engine.parse(LOCKED), {})
        second = await engine.start(engine.parse(LOCKED), {})

        await engine.signal(second, "hello")
        await engine.pause(second)
        await engine.resume(second)

        assert (await engine.get(second)).state is RunState.PENDING
        [wait] = await engine.why(second)
        assert wait.reasons[0].kind == "lock"
        assert wait.reasons[0].holders == (first,)
        gate.set()
        assert (await engine.wait(second, 5)).state is RunState.SUCCEEDED


async def test_a_signal_to_a_run_that_cannot_be_loaded_does_not_end_it(
    database: Database, registry: Registry, shop: Workshop
) -> None:
    async with opened(database, registry, shop) as engine:
        shop.block("b")
        run = await engine.start(engine.parse(LONG), {})
        await called(shop, "b")
        await engine.abandon()

    async with opened(database, Registry(), shop) as engine:
        assert (await engine.get(run)).state is RunState.NEEDS_OPERATOR
        await engine.signal(run, "hello")
        assert (await engine.get(run)).state is RunState.NEEDS_OPERATOR


async def test_what_was_kept_is_undone_under_the_lock_only(
    database: Database, registry: Registry, shop: Workshop
) -> None:
    kept = LOCKED.replace("lock:", "on_failure: keep\nlock:")
    async with opened(database, registry, shop) as engine:
        shop.fail("b", ValueError("no"), times=1)
        run = await engine.start(engine.parse(kept), {})
        assert (await engine.wait(run, 5)).state is RunState.FAILED
        gate = shop.block("c")
        other = await engine.start(engine.parse(LOCKED), {})
        await called(shop, "c")
        await engine.retry(run)

        await engine.cancel(run)
        await asyncio.sleep(0.02)

        assert shop.calls["undo a"] == 0
        gate.set()
        assert (await engine.wait(other, 5)).state is RunState.SUCCEEDED
        assert (await engine.wait(run, 5)).state is RunState.CANCELLED
    assert shop.calls["undo a"] == 1


# one run's trouble is its own


async def test_a_slot_is_free_again_when_the_run_that_had_it_was_set_apart(
    database: Database, registry: Registry, shop: Workshop
) -> None:
    async with opened(database, registry, shop, concurrency=1) as engine:
        a = shop.block("a")
        first = await engine.start(engine.parse(LONG), {})
        await called(shop, "a")
        other = await engine.start(engine.parse(LONG.replace("name: ", "name: o")), {})
        engine._roster.isolate(first, "for the test")

        a.set()

        assert (await engine.wait(other, 5)).state is RunState.SUCCEEDED


class Clumsy:
    """An observer in which everything is an error."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        def fail(*_args: object) -> None:
            raise RuntimeError(f"{name} is broken")

        return fail


async def test_an_observer_that_fails_changes_nothing(
    database: Database, registry: Registry, shop: Workshop
) -> None:
    async with opened(database, registry, shop, concurrency=1) as engine:
        engine.add_observer(Clumsy())
        runs = [await engine.start(engine.parse(LONG), {}) for _ in range(3)]

        for run in runs:
            assert (await engine.wait(run, 5)).state is RunState.SUCCEEDED


async def test_why_says_that_a_wait_is_for_a_time_far_beyond_the_calendar(
    database: Database, registry: Registry, shop: Workshop
) -> None:
    text = "flow: far\nsteps:\n  w: {wait: until, with: {time: 1764000000000}}\n"
    async with opened(database, registry, shop) as engine:
        run = await engine.start(engine.parse(text), {})
        await until(engine, run, RunState.WAITING)

        [wait] = await engine.why(run)

    assert wait.reasons[0].kind == "timer"


async def test_every_item_of_a_long_fan_out_can_be_approved(
    database: Database, registry: Registry, shop: Workshop
) -> None:
    registry.add_documents({"asks.yaml": "flow: asks\nsteps:\n  ok: {wait: approval, with: {message: go}}\n"})
    text = """
flow: many
input: {names: "list[int]"}
steps:
  all: {flow: asks, each: $input.names}
"""
    async with opened(database, registry, shop) as engine:
        run = await engine.start(engine.parse(text), {"names": list(range(1100))})
        await until(engine, run, RunState.WAITING)

        await engine.approve(run, "all[1099].ok")


@step
async def turns(cx: Context[Workshop], name: str) -> None:
    """Makes another error of being interrupted, as many libraries do."""
    try:
        await cx.env.enter(name)
    except asyncio.CancelledError as error:
        raise ValueError("the connection was closed") from error


async def test_a_step_that_is_interrupted_because_the_engine_closes_has_not_failed(
    database: Database, registry: Registry, shop: Workshop
) -> None:
    registry.add_step(turns, "turns")
    text = "flow: turns\nsteps:\n  a: {use: turns, with: {name: a}}\n"
    async with opened(database, registry, shop) as engine:
        shop.block("a")
        run = await engine.start(engine.parse(text), {})
        await called(shop, "a")
    shop.faults.clear()

    async with opened(database, registry, shop) as engine:
        assert (await engine.wait(run, 5)).state is RunState.SUCCEEDED


class Forgetful(Database):
    """Commits, and then says that it did not, as a connection does that breaks at the very end."""

    lie = False

    async def _commit(self, commit: Callable[[], object]) -> None:
        await commit()  # type: ignore[misc]
        if self.lie:
            self.lie = False
            raise ConnectionError("the connection broke")


async def test_a_transaction_that_was_committed_unseen_is_not_done_twice(
    url: str, registry: Registry, shop: Workshop
) -> None:
    text = (
        "flow: list\nsteps:\n  a: {use: w.enlist, with: {name: a}}\n  b: {use: w.enlist, with: {name: b}}\n"
    )
    database = await Forgetful.open(url, durable=False)
    async with opened(database, registry, shop) as engine:

        async def lie() -> None:
            database.lie = True

        shop.faults["a"] = lie
        run = await engine.start(engine.parse(text), {})
        record = await engine.wait(run, 10)

    assert (record.state, record.error) == (RunState.SUCCEEDED, "")
    assert await shop.things() == ["a", "b"]
    await database.close()


async def test_an_engine_that_was_replaced_leaves_the_database_to_its_successor(
    url: str, registry: Registry, shop: Workshop
) -> None:
    first, second = await Database.open(url, durable=False), await Database.open(url, durable=False)
    async with opened(first, registry, shop) as old:
        gate = shop.block("b")
        run = await old.start(old.parse(LONG), {})
        await called(shop, "b")
        async with opened(second, registry, shop) as new:
            worker = (await new.get(run)).worker
            for _ in range(3):
                with pytest.raises(FlowFault):
                    await old.start(old.parse(LONG), {})
                await asyncio.sleep(0.05)  # in which it could take the database back
            gate.set()

            assert (await new.wait(run, 5)).state is RunState.SUCCEEDED
            assert (await new.get(run)).worker == worker
    await first.close()
    await second.close()


async def test_generated_flows_without_number_are_not_all_kept_in_memory(
    database: Database, registry: Registry, shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "MOST_PLANS", 3)
    monkeypatch.setattr(starting, "MOST_PLANS", 3)
    async with opened(database, registry, shop) as engine:
        for number in (*range(8), 0):
            run = await engine.start(engine.parse(LONG.replace("flow: long", f"flow: f{number}")), {})
            assert (await engine.wait(run, 5)).state is RunState.SUCCEEDED

        assert len(engine._loader._bound) == 3
        assert len(engine._starting._stored) == len(engine._starting._stored_at) == 3
