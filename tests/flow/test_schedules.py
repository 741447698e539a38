"""Schedules: when they are due, what overlaps, what was missed; each due time begins at most one run."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tests.flow import workshop
from tests.flow.workshop import Workshop

from skep.flow import Database, FlowEngine, InputError, Priority, RunState, UnknownFlow, WrongState
from skep.flow.schedules import Missed, Overlap, Schedules, Times, UnknownSchedule, WrongSchedule
from skep.flow.schedules.clockwork import Clockwork
from skep.flow.testing import CrashingDatabase, VirtualTime, in_virtual_time

NIGHTLY = """
flow: nightly
input: {name: str}
steps:
  make: {use: w.make, with: {name: $input.name}}
"""
START = datetime(2026, 11, 23, 20, 59, 30, tzinfo=UTC).timestamp()


class House:
    """An engine with its schedules, and the task that keeps them."""

    def __init__(self, database: Database, engine: FlowEngine, schedules: Schedules, shop: Workshop) -> None:
        self.database, self.engine, self.schedules, self.shop = database, engine, schedules, shop

    async def put(self, cron: str, overlap: Overlap = "skip", missed: Missed = "once") -> None:
        await self.schedules.put("tidy", "nightly", {"name": "a"}, cron, overlap=overlap, missed=missed)

    async def due_times(self) -> list[str]:
        """Of the runs there are, oldest first; "" for one that was begun by hand."""
        return [run.labels.get("due", "") for run in reversed(await self.engine.list())]

    async def states(self) -> list[RunState]:
        return [run.state for run in reversed(await self.engine.list())]


Open = Callable[[], AbstractAsyncContextManager[House]]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with capture_logs():
        yield


@pytest.fixture
def virtual() -> VirtualTime:
    return VirtualTime(START - 1000.0)


@pytest.fixture
def house(virtual: VirtualTime, tmp_path: Path) -> Open:
    """Opened anew it is the same house: its database and its workshop outlast the process."""
    shop = Workshop()

    @asynccontextmanager
    async def open_house() -> AsyncIterator[House]:
        database = await Database.open(f"sqlite+aiosqlite:///{tmp_path}/flow.db", durable=False)
        registry = workshop.registry()
        registry.add_flow(NIGHTLY, "nightly.yaml")
        async with FlowEngine(
            database,
            registry,
            shop.environment,
            clock=virtual.time,
            grace=0.0,
            retry_delay=lambda _tries: 1.0,
        ) as engine:
            schedules = Schedules(database, engine, virtual.time)
            keeper = asyncio.create_task(schedules.run())
            try:
                yield House(database, engine, schedules, shop)
            finally:
                keeper.cancel()
                await asyncio.wait([keeper])
        await database.close()

    return open_house


# when


def local(text: str, zone: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def shown(moments: list[float], zone: str) -> list[str]:
    return [datetime.fromtimestamp(moment, ZoneInfo(zone)).isoformat() for moment in moments]


def test_a_time_that_spring_leaves_out_is_due_when_the_clocks_have_changed() -> None:
    times = Times("30 2 * * *", "Europe/Berlin")

    found = times.upcoming(local("2026-03-28T12:00", "Europe/Berlin"), 2)

    assert shown(found, "Europe/Berlin") == ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]


def test_a_time_that_comes_twice_in_autumn_is_due_once() -> None:
    times = Times("30 2 * * *", "Europe/Berlin")

    found = times.upcoming(local("2026-10-24T12:00", "Europe/Berlin"), 2)

    assert shown(found, "Europe/Berlin") == ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]


@pytest.mark.parametrize("changing", ["2026-03-29T00:30", "2026-10-25T00:30"])
def test_every_hour_is_every_hour_that_passes_also_when_clocks_change(changing: str) -> None:
    found = Times("@hourly", "Europe/Berlin").upcoming(local(changing, "Europe/Berlin"), 6)

    assert [later - earlier for earlier, later in pairwise(found)] == [3600.0] * 5


@given(
    st.floats(0, 4e9),
    st.sampled_from(
        ["30 2 * * *", "*/7 * * * *", "0 0 * * 0", "59 23 31 12 *", "0 0 29 2 *", "15 1-3 * * *"]
    ),
    st.sampled_from(["UTC", "Europe/Berlin", "America/Santiago", "Australia/Lord_Howe", "Asia/Kathmandu"]),
)
def test_due_times_are_whole_minutes_and_only_ever_grow(moment: float, cron: str, zone: str) -> None:
    found = [moment, *Times(cron, zone).upcoming(moment, 5)]

    assert all(earlier < later for earlier, later in pairwise(found))
    assert all(time % 60 == 0 for time in found[1:])


@pytest.mark.parametrize(
    ("cron", "zone", "reason"),
    [
        ("61 * * * *", "UTC", "Bad minute"),
        ("* * * * * *", "UTC", "takes minute hour day month weekday"),
        ("", "UTC", "takes minute hour day month weekday"),
        ("0 0 30 2 *", "UTC", "Bad day-of-month"),
        ("@daily", "Mars/Olympus", "there is no time zone 'Mars/Olympus'"),
        ("@daily", "../etc/passwd", "there is no time zone"),
        ("@daily", "Europe", "there is no time zone 'Europe'"),
        ("@daily", "", "there is no time zone ''"),
    ],
)
def test_a_time_that_nobody_can_keep_is_refused_with_the_reason(cron: str, zone: str, reason: str) -> None:
    with pytest.raises(WrongSchedule) as refused:
        Times(cron, zone).check()

    assert reason in str(refused.value)


# starting


@in_virtual_time
async def test_a_run_begins_at_each_due_time(virtual: VirtualTime, house: Open) -> None:
    async with house() as it:
        await it.put("*/5 * * * *")

        await asyncio.sleep(11 * 60)

        assert await it.due_times() == [
            "2026-11-23T21:00:00Z",
            "2026-11-23T21:05:00Z",
            "2026-11-23T21:10:00Z",
        ]
        runs = await it.engine.list()
        assert all(
            0 <= (run.created - datetime.fromisoformat(run.labels["due"])).total_seconds() < 0.1
            for run in runs
        )
        schedule = await it.schedules.get("", "tidy")
        assert (schedule.last_run, schedule.next) == (runs[0].id, datetime(2026, 11, 23, 21, 15, tzinfo=UTC))


@in_virtual_time
async def test_a_new_schedule_is_not_left_waiting_for_the_next_look(
    virtual: VirtualTime, house: Open
) -> None:
    """It is due sooner than the keeper would have looked again by itself."""
    async with house() as it:
        await asyncio.sleep(14.0)

        await it.put("* * * * *")
        await asyncio.sleep(17.0)

        assert await it.due_times() == ["2026-11-23T21:00:00Z"]


@in_virtual_time
async def test_runs_have_the_tenant_and_priority_of_their_schedule(virtual: VirtualTime, house: Open) -> None:
    async with house() as it:
        await it.schedules.put(
            "tidy", "nightly", {"name": "a"}, "@hourly", tenant="acme", priority=Priority.BULK
        )
        await asyncio.sleep(60.0)

        (run,) = await it.engine.list()

        assert (run.tenant, run.priority, run.labels["schedule"]) == ("acme", Priority.BULK, "tidy")


@in_virtual_time
async def test_idle_schedules_are_looked_at_every_thirty_seconds_at_most(
    virtual: VirtualTime, house: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    look = Clockwork._look

    async def counted(keeper: Clockwork) -> float:
        nonlocal looks
        looks += 1
        return await look(keeper)

    monkeypatch.setattr(Clockwork, "_look", counted)
    async with house() as it:
        await it.put("@yearly")

        await asyncio.sleep(3600.0)

    assert looks <= 122


@in_virtual_time
async def test_hundreds_of_schedules_of_one_minute_all_start(virtual: VirtualTime, house: Open) -> None:
    async with house() as it:
        await asyncio.gather(
            *(it.schedules.put(f"s{n}", "nightly", {"name": f"n{n}"}, "@hourly") for n in range(150))
        )

        await asyncio.sleep(60.0)

        assert len(await it.engine.list(limit=1000)) == 150


@in_virtual_time
async def test_a_flow_that_is_gone_is_said_and_the_schedule_goes_on(
    virtual: VirtualTime, house: Open
) -> None:
    async with house() as it:
        await it.put("* * * * *")
        flow = it.engine.registry.flow("nightly")
        it.engine.registry._flows.pop("nightly")
        it.engine.registry._drafts.pop("nightly")
        await asyncio.sleep(40.0)
        schedule = await it.schedules.get("", "tidy")
        it.engine.registry._flows["nightly"] = flow

        await asyncio.sleep(60.0)

        assert schedule.error.startswith("2026-11-23 21:00 UTC: there is no flow 'nightly'")
        assert await it.due_times() == ["2026-11-23T21:01:00Z"]
        assert (await it.schedules.get("", "tidy")).error == ""


# overlap


@in_virtual_time
async def test_skip_begins_none_while_the_last_one_runs(virtual: VirtualTime, house: Open) -> None:
    async with house() as it:
        release = it.shop.block("a")
        await it.put("* * * * *", "skip")
        await asyncio.sleep(130.0)
        schedule = await it.schedules.get("", "tidy")

        release.set()
        await asyncio.sleep(40.0)

        assert await it.due_times() == ["2026-11-23T21:00:00Z", "2026-11-23T21:02:00Z"]
        assert schedule.error == f"2026-11-23 21:01 UTC: run {schedule.last_run} had not ended"


@in_virtual_time
async def test_queue_begins_one_as_soon_as_the_last_one_has_ended(virtual: VirtualTime, house: Open) -> None:
    async with house() as it:
        release = it.shop.block("a")
        await it.put("* * * * *", "queue")
        await asyncio.sleep(200.0)
        before = await it.due_times()

        release.set()
        await asyncio.sleep(1.0)

        assert before == ["2026-11-23T21:00:00Z"]
        assert await it.due_times() == ["2026-11-23T21:00:00Z", "2026-11-23T21:01:00Z"]


@in_virtual_time
async def test_cancel_undoes_the_last_one_before_the_next_begins(virtual: VirtualTime, house: Open) -> None:
    async with house() as it:
        it.shop.block("a")
        await it.put("* * * * *", "cancel")
        await asyncio.sleep(35.0)

        await asyncio.sleep(60.0)

        assert await it.states() == [RunState.CANCELLED, RunState.RUNNING]
        assert it.shop.log == ["a", "undo a", "a"]


@in_virtual_time
async def test_allow_begins_one_beside_the_other(virtual: VirtualTime, house: Open) -> None:
    async with house() as it:
        it.shop.block("a")
        await it.put("* * * * *", "allow")

        await asyncio.sleep(100.0)

        assert await it.states() == [RunState.RUNNING, RunState.RUNNING]


# down


@in_virtual_time
async def test_what_was_due_while_nobody_was_there_is_made_up_for_once(
    virtual: VirtualTime, house: Open
) -> None:
    async with house() as it:
        await it.put("*/5 * * * *")
    await asyncio.sleep(3600.0)

    async with house() as it:
        await asyncio.sleep(1.0)

        assert await it.due_times() == ["2026-11-23T21:00:00Z"]
        assert (await it.schedules.get("", "tidy")).next == datetime(2026, 11, 23, 22, 0, tzinfo=UTC)


@in_virtual_time
async def test_what_was_missed_is_not_made_up_for_if_nobody_wants_it(
    virtual: VirtualTime, house: Open
) -> None:
    async with house() as it:
        await it.put("*/5 * * * *", missed="none")
    await asyncio.sleep(3600.0)

    async with house() as it:
        await asyncio.sleep(1.0)
        schedule = await it.schedules.get("", "tidy")
        await asyncio.sleep(40.0)

        assert schedule.error == "2026-11-23 21:00 UTC: nobody was there"
        assert await it.due_times() == ["2026-11-23T22:00:00Z"]


@in_virtual_time
async def test_asking_for_the_same_schedule_again_does_not_lose_what_is_due(
    virtual: VirtualTime, house: Open
) -> None:
    async with house() as it:
        await it.put("*/5 * * * *")
    await asyncio.sleep(3600.0)

    async with house() as it:
        await it.put("*/5 * * * *")
        await asyncio.sleep(1.0)

        assert await it.due_times() == ["2026-11-23T21:00:00Z"]


@in_virtual_time
async def test_a_clock_that_is_put_back_repeats_no_run(virtual: VirtualTime, house: Open) -> None:
    async with house() as it:
        await it.put("*/5 * * * *")
        await asyncio.sleep(360.0)
        virtual.shift(-900.0)
        await it.put("*/6 * * * *")
        await it.put("*/5 * * * *")

        await asyncio.sleep(1200.0)

        assert sorted(await it.due_times()) == [
            f"2026-11-23T{time}:00Z" for time in ("20:55", "21:00", "21:05", "21:10")
        ]


@in_virtual_time
async def test_a_clock_that_was_ten_years_ahead_for_a_while_puts_no_schedule_to_sleep(
    virtual: VirtualTime, house: Open
) -> None:
    ten_years = 3652 * 86400.0
    async with house() as it:
        await it.put("*/5 * * * *")
        await asyncio.sleep(400.0)
        virtual.shift(ten_years)
        await asyncio.sleep(400.0)
        await it.schedules.put("new", "nightly", {"name": "b"}, "*/5 * * * *")
        virtual.shift(-ten_years)
        before = len(await it.engine.list())

        await asyncio.sleep(700.0)

        runs = await it.engine.list()
        since = [run.labels["schedule"] for run in runs[: len(runs) - before]]
        dues = [(run.labels["schedule"], run.labels["due"]) for run in runs]
        assert since.count("tidy") >= 2
        assert since.count("new") >= 2
        assert len(dues) == len(set(dues))


@pytest.mark.parametrize("point", range(8))
@in_virtual_time
async def test_wherever_the_process_dies_each_due_time_begins_one_run(
    virtual: VirtualTime, house: Open, tmp_path: Path, point: int
) -> None:
    async with house() as it:
        await it.put("* * * * *", "allow")
    database = await CrashingDatabase.open(f"sqlite+aiosqlite:///{tmp_path}/flow.db", durable=False)
    registry = workshop.registry()
    registry.add_flow(NIGHTLY, "nightly.yaml")
    engine = FlowEngine(database, registry, it.shop.environment, clock=virtual.time)
    await engine.__aenter__()
    crashed = database.arm(point)
    keeper = asyncio.create_task(Schedules(database, engine, virtual.time).run())
    await crashed.wait()
    keeper.cancel()
    await asyncio.wait([keeper])
    await engine.abandon()
    await database.abandon()

    async with house() as it:
        await asyncio.sleep(90.0)

        due = await it.due_times()
        assert due[0] == "2026-11-23T21:00:00Z"
        assert len(due) == len(set(due)) >= 2
        assert await it.states() == [RunState.SUCCEEDED] * len(due)


async def test_two_processes_begin_one_run_per_due_time(database: Database, shop: Workshop) -> None:
    """Both look at the same moment, again and again."""
    await shop.attach(database)
    registry = workshop.registry()
    registry.add_flow(NIGHTLY, "nightly.yaml")
    now = START

    def engine(name: str) -> FlowEngine:
        return FlowEngine(database, registry, shop.environment, shared=True, name=name, clock=lambda: now)

    async with engine("one") as one, engine("two") as two:
        keepers = [Clockwork(database, each, lambda: now) for each in (one, two)]
        await Schedules(database, one, lambda: now).put(
            "tidy", "nightly", {"name": "a"}, "* * * * *", overlap="allow"
        )

        for _ in range(10):
            now += 60.0
            await asyncio.gather(*(keeper._look() for keeper in keepers))

        due = [run.labels["due"] for run in await one.list()]
        assert len(due) == len(set(due)) == 10


# by hand


@in_virtual_time
async def test_a_paused_schedule_starts_nothing_and_makes_up_for_nothing(
    virtual: VirtualTime, house: Open
) -> None:
    async with house() as it:
        await it.put("*/5 * * * *")
        await it.schedules.pause("", "tidy", by="ann")
        await asyncio.sleep(400.0)
        paused = await it.schedules.get("", "tidy")
        await it.schedules.resume("", "tidy")

        await asyncio.sleep(300.0)

        assert (paused.paused, paused.by) == (True, "ann")
        assert await it.due_times() == ["2026-11-23T21:10:00Z"]


@in_virtual_time
async def test_run_now_begins_a_run_that_counts_as_the_last_one(virtual: VirtualTime, house: Open) -> None:
    async with house() as it:
        release = it.shop.block("a")
        await it.put("* * * * *", "skip")
        run = await it.schedules.run_now("", "tidy", by="ann")
        with pytest.raises(WrongState, match=run):
            await it.schedules.run_now("", "tidy")
        await asyncio.sleep(40.0)
        due = await it.due_times()

        release.set()
        await asyncio.sleep(1.0)
        await it.schedules.run_now("", "tidy")

        assert due == [""]
        assert await it.due_times() == ["", ""]
        assert (await it.engine.get(run)).labels == {"schedule": "tidy", "started-by": "ann"}


@in_virtual_time
async def test_a_deleted_schedule_starts_nothing_more(virtual: VirtualTime, house: Open) -> None:
    async with house() as it:
        await it.put("* * * * *")
        await it.schedules.delete("", "tidy")

        await asyncio.sleep(120.0)

        assert await it.due_times() == []
        assert await it.schedules.list() == []
        with pytest.raises(UnknownSchedule, match="there is no schedule 'tidy'"):
            await it.schedules.pause("", "tidy")


@in_virtual_time
async def test_a_schedule_that_could_not_start_is_refused(virtual: VirtualTime, house: Open) -> None:
    async with house() as it:
        put = it.schedules.put
        with pytest.raises(UnknownFlow, match="there is no flow 'nowhere'"):
            await put("tidy", "nowhere", {}, "@daily")
        with pytest.raises(InputError, match="input 'name' must be str"):
            await put("tidy", "nightly", {"name": 7}, "@daily")
        with pytest.raises(WrongSchedule, match="no name of a schedule"):
            await put("Tidy up!", "nightly", {"name": "a"}, "@daily")
        with pytest.raises(WrongSchedule, match="Bad minute"):
            await put("tidy", "nightly", {"name": "a"}, "99 * * * *")

        assert await it.schedules.list() == []


@in_virtual_time
async def test_the_keeper_ends_when_it_is_told_though_there_is_news(
    virtual: VirtualTime, house: Open
) -> None:
    async with house() as it:
        keeper = asyncio.create_task(it.schedules.run())
        await asyncio.sleep(1.0)

        it.schedules._clockwork.wake()
        await asyncio.sleep(0)
        keeper.cancel()

        async with asyncio.timeout(1000.0):
            await asyncio.wait([keeper])
        assert keeper.cancelled()


async def test_schedules_are_kept_by_tenant_and_name(database: Database, engine: FlowEngine) -> None:
    engine.registry.add_flow(NIGHTLY, "nightly.yaml")
    schedules = Schedules(database, engine)
    for tenant, name in (("b", "x"), ("a", "y"), ("a", "x")):
        await schedules.put(name, "nightly", {"name": "a"}, "@daily", tenant=tenant, timezone="Asia/Tokyo")

    changed = await schedules.put("x", "nightly", {"name": "b"}, "@weekly", tenant="a", by="ann")

    assert [(each.tenant, each.name) for each in await schedules.list()] == [
        ("a", "x"),
        ("a", "y"),
        ("b", "x"),
    ]
    assert [each.name for each in await schedules.list("a")] == ["x", "y"]
    assert (changed.input, changed.timezone, changed.by) == ({"name": "b"}, "UTC", "ann")
