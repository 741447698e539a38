"""Concurrency limits and rates that several workers keep together: never too much, and nobody is kept out."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update
from tests.flow.workers.members import Member, lapse, members, put_run, put_runs

from skep.flow.admission.policies import Policies, Policy
from skep.flow.admission.tickets import Ticket, Use
from skep.flow.errors import Fenced
from skep.flow.runs import Reason
from skep.flow.steps import RunId
from skep.flow.storage import tables
from skep.flow.storage.permits import SharedPermits
from skep.flow.storage.tally import Bucket, Tally, Wanted
from skep.flow.storage.wakeups import PERMITS, wakeups_for

MAIL = Use("mail", concurrency=1)


def wants(run: str, *limits: Use, step: str = "send", priority: int = 2) -> Wanted:
    return Wanted(RunId(run), step, priority, limits or (MAIL,))


class Desk:
    """A worker's permits."""

    def __init__(self, member: Member, permits: SharedPermits) -> None:
        self.member = member
        self.permits = permits
        self.heard = asyncio.Event()

    async def acquire(self, *wanted: Wanted) -> list[bool]:
        return [reason is None for reason in await self.permits.acquire(wanted)]

    async def release(self, *wanted: Wanted) -> None:
        await self.permits.release([(one.run, one.step) for one in wanted])

    def hear(self, topic: str) -> None:
        if topic in (PERMITS, ""):
            self.heard.set()


@asynccontextmanager
async def desks(url: str, count: int) -> AsyncIterator[list[Desk]]:
    """Of several workers; there are runs r0 to r9, and who has them does not matter here."""
    async with members(url, count) as joined, AsyncExitStack() as stack:
        await put_runs(joined[0].database, [f"r{n}" for n in range(10)])
        made = []
        for member in joined:
            wakeups = wakeups_for(member.database)
            stack.push_async_callback(wakeups.close)
            desk = Desk(member, SharedPermits(member.database, member.membership, wakeups))
            wakeups.listen(desk.hear)
            made.append(desk)
        yield made


async def test_two_workers_do_not_exceed_a_limit_together(url: str) -> None:
    async with desks(url, 2) as (one, other):
        two = Use("mail", concurrency=2)
        first = await one.acquire(wants("r1", two), wants("r2", two), wants("r3", two))
        second = await other.acquire(wants("r4", two))
        await one.release(wants("r1", two))
        await one.acquire()

        assert (first, second) == ([True, True, False], [False])
        assert await other.acquire(wants("r4", two)) == [True]


async def test_who_counts_on_several_keys_gets_all_or_none(url: str) -> None:
    async with desks(url, 2) as (one, other):
        disk = Use("disk", concurrency=1)
        await one.acquire(wants("r1", MAIL))

        refused = await other.acquire(wants("r2", MAIL, disk))
        await other.acquire()

        assert refused == [False]
        assert await one.acquire(wants("r3", disk)) == [True]


async def test_a_permit_that_is_asked_for_again_is_the_same_permit(url: str) -> None:
    async with desks(url, 1) as (one,):
        assert await one.acquire(wants("r1")) == [True]
        assert await one.acquire(wants("r1")) == [True]

        await one.release(wants("r1"))

        assert await one.acquire(wants("r2")) == [True]


async def test_steps_of_one_run_count_each(url: str) -> None:
    async with desks(url, 1) as (one,):
        assert await one.acquire(wants("r1", step="a"), wants("r1", step="b")) == [True, False]


async def test_what_is_released_wakes_the_others(postgresql: str) -> None:
    async with desks(postgresql, 2) as (one, other):
        await one.acquire(wants("r1"))
        await other.acquire(wants("r2"))
        other.heard.clear()

        await one.release(wants("r1"))
        async with asyncio.timeout(10):
            await other.heard.wait()

        assert await other.acquire(wants("r2")) == [True]


async def test_a_busy_worker_leaves_a_place_to_one_that_has_waited(url: str) -> None:
    async with desks(url, 2) as (busy, other):
        await busy.acquire(wants("r5"))
        await other.acquire(wants("r4"))
        await busy.release(wants("r5"))

        (reason,) = await busy.permits.acquire([wants("r6")])
        theirs = await other.acquire(wants("r4"))

        assert reason is not None
        assert reason.message == "mail has 0 of 1 under way, and run r4 of other workers go before."
        assert theirs == [True]


async def test_urgent_steps_of_another_worker_go_before_older_ones(url: str) -> None:
    async with desks(url, 2) as (one, other):
        await one.acquire(wants("r1"))
        await other.acquire(wants("r9", priority=0))
        await one.release(wants("r1"))

        assert await one.acquire(wants("r2")) == [False]
        assert await other.acquire(wants("r9", priority=0)) == [True]


async def test_who_waits_no_more_is_left_no_place(url: str) -> None:
    async with desks(url, 2) as (one, other):
        await one.acquire(wants("r5"))
        await other.acquire(wants("r4"))
        await one.release(wants("r5"))
        await other.acquire()

        assert await one.acquire(wants("r6")) == [True]


async def test_a_step_on_a_key_that_is_switched_off_keeps_nobody_else_waiting(url: str) -> None:
    async with desks(url, 2) as (one, other):
        off = Use("tenant/acme", concurrency=0)

        refused = await other.acquire(wants("r1", off, MAIL))

        assert refused == [False]
        assert await one.acquire(wants("r2")) == [True]


async def test_the_permits_of_a_dead_worker_are_free_when_its_runs_are_taken_over(url: str) -> None:
    async with desks(url, 2) as (dead, other):
        await dead.acquire(wants("r1"), wants("r2"))
        await lapse(dead.member.database, dead.member.id)
        before = await other.acquire(wants("r3"))

        await other.member.adopt()

        assert before == [False]
        assert await other.acquire(wants("r3")) == [True]
        with pytest.raises(Fenced):
            await dead.acquire(wants("r1"))


async def test_a_worker_that_was_held_for_dead_releases_nothing_of_its_successors(url: str) -> None:
    async with desks(url, 2) as (dead, other):
        await dead.acquire(wants("r1"))
        await lapse(dead.member.database, dead.member.id)
        await other.member.adopt()
        await other.acquire(wants("r1"))

        await dead.release(wants("r1"))

        assert await other.acquire(wants("r3")) == [False]


async def test_a_worker_that_leaves_gives_its_permits_back(url: str) -> None:
    async with desks(url, 2) as (one, other):
        await one.acquire(wants("r1"))
        await one.member.membership.leave()

        assert await other.acquire(wants("r2")) == [True]


async def test_a_rate_is_kept_by_all_workers_together(url: str) -> None:
    async with desks(url, 2) as made:
        mail = Use("mail", rate=40.0, burst=20.0)
        granted, started = 0, time.monotonic()
        while time.monotonic() - started < 0.6:
            granted += sum(await made[granted % 2].acquire(wants("r1", mail), wants("r2", mail)))
        took = time.monotonic() - started

        assert 24 <= granted <= 20 + 40 * took + 1


async def test_a_rate_says_when_the_next_one_may_go(url: str) -> None:
    async with desks(url, 1) as (one,):
        mail = Use("mail", rate=0.1)
        await one.acquire(wants("r1", mail))

        (reason,) = await one.permits.acquire([wants("r2", mail)])

        assert reason is not None
        assert reason.until is not None
        assert reason.kind == "rate"
        assert 8 < reason.until.timestamp() - time.time() < 10.5


async def test_a_clock_that_is_put_back_neither_stops_a_rate_nor_opens_it(url: str) -> None:
    async with desks(url, 1) as (one,):
        mail = Use("mail", rate=20.0, burst=1.0)
        await one.acquire(wants("r1", mail))
        ahead = update(tables.buckets).values(at=tables.buckets.c.at + 3600)
        await one.member.database.write(lambda connection: connection.execute(ahead))

        assert await one.acquire(wants("r2", mail)) == [False]
        await asyncio.sleep(0.06)
        assert await one.acquire(wants("r2", mail), wants("r3", mail)) == [True, False]


async def test_a_wider_key_limits_all_that_is_within_it_on_all_workers(url: str) -> None:
    async with desks(url, 2) as (one, other):
        policies = Policies({"tenant/*": Policy(concurrency=2)})

        def ticket(run: str, tenant: str, *uses: Use) -> Wanted:
            asked = Ticket(RunId(run), "send", tenant, "f", "mail.send", "", 2, None, uses)
            return Wanted.by(asked, policies)

        builds = Use("tenant/acme/builds", concurrency=5)
        first = await one.acquire(ticket("r1", "acme"), ticket("r2", "acme", builds))
        second = await other.acquire(ticket("r3", "acme", builds), ticket("r4", "acme"), ticket("r5", "bolt"))

        assert (first, second) == ([True, True], [False, False, True])


async def test_why_names_everything_that_stands_against_a_step_and_who_has_it(url: str) -> None:
    async with desks(url, 2) as (one, other):
        disk, mail = Use("disk", concurrency=2), Use("mail", rate=0.001)
        await one.acquire(wants("r1", disk, step="copy"), wants("r2", disk, mail))

        full, early = await other.permits.why(wants("r3", disk, mail))

        assert full == Reason(
            kind="limit", subject="disk", message="disk has 2 of 2 under way.", holders=("r1/copy", "r2/send")
        )
        assert (early.kind, early.subject) == ("rate", "mail")
        assert await one.permits.why(wants("r3", Use("else", concurrency=1))) == ()


@pytest.mark.parametrize("seed", range(2))
async def test_whatever_workers_do_no_limit_is_exceeded_and_everybody_gets_his_turn(
    url: str, seed: int
) -> None:
    """60 steps on three workers, which ask as they like, all under limits that are always full."""
    chance = random.Random(seed)
    limits = {"tenant/a": 3, "tenant/a/builds": 2, "mail": 1}
    async with desks(url, 3) as made:
        runs = await put_runs(made[0].member.database, [f"s{n:02}" for n in range(60)])
        inside: list[Wanted] = []
        most: Counter[str] = Counter()

        def of(run: RunId) -> Wanted:
            keys = chance.choice(
                [["tenant/a"], ["tenant/a", "tenant/a/builds"], ["mail", "tenant/a"], ["mail"]]
            )
            uses = [Use(key, concurrency=limits[key]) for key in keys]
            return wants(run, *uses, priority=chance.randint(0, 4))

        async def carry_out(desk: Desk, one: Wanted) -> None:
            inside.append(one)
            for key, count in Counter(use.key for one in inside for use in one.limits).items():
                most[key] = max(most[key], count)
            await asyncio.sleep(chance.uniform(0, 0.01))
            inside.remove(one)
            await desk.release(one)

        async def work(desk: Desk, waiting: list[Wanted]) -> None:
            under_way = set()
            while waiting:
                desk.heard.clear()
                chance.shuffle(waiting)
                answers = await desk.acquire(*waiting)
                going = [one for one, yes in zip(waiting, answers, strict=True) if yes]
                under_way |= {asyncio.create_task(carry_out(desk, one)) for one in going}
                waiting = [one for one in waiting if one not in going]
                with suppress(TimeoutError):
                    await asyncio.wait_for(desk.heard.wait(), 0.02)
            await asyncio.gather(desk.acquire(), *under_way)

        async with asyncio.timeout(30):
            await asyncio.gather(
                *(work(desk, [of(run) for run in runs[n::3]]) for n, desk in enumerate(made))
            )

        assert all(most[key] <= limits[key] for key in limits)
        assert most["tenant/a"] > 1
        assert await left(made[0]) == []


async def left(desk: Desk) -> Sequence[str]:
    async with desk.member.database.read() as connection:
        return (await connection.execute(select(tables.permits.c.key))).scalars().all()


async def test_a_run_that_is_deleted_takes_its_permits_along(url: str) -> None:
    async with desks(url, 1) as (one,):
        await put_run(one.member.database, "gone")
        await one.acquire(wants("gone"))
        gone = tables.runs.delete().where(tables.runs.c.id == "gone")
        await one.member.database.write(lambda connection: connection.execute(gone))

        assert await one.acquire(wants("r1")) == [True]


@settings(deadline=None)
@given(
    rate=st.floats(0.1, 100),
    burst=st.floats(1, 20),
    steps=st.lists(st.tuples(st.floats(0, 3), st.integers(0, 8)), max_size=40),
)
def test_no_stretch_of_time_has_more_than_its_rate_and_one_burst(
    rate: float, burst: float, steps: list[tuple[float, int]]
) -> None:
    use, now, buckets = Use("mail", rate=rate, burst=burst), 1000.0, dict[str, Bucket]()
    passed: list[float] = []

    for pause, asking in steps:
        now += pause
        tally = Tally({}, buckets, {}, now)
        passed += [now for _ in range(asking) if tally.judge(wants("r1", use)) is None]
        buckets = tally.buckets

    for first, start in enumerate(passed):
        for last in range(first, len(passed)):
            assert last - first + 1 <= burst + rate * (passed[last] - start) + 1e-6


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True), max_size=30))
def test_no_moment_permits_more_than_there_is_room_for(asked: list[list[str]]) -> None:
    capacity = {"a": 1, "b": 3, "c": 5}
    tally = Tally({"c": 2}, {}, {}, 0.0)
    uses = [tuple(Use(key, concurrency=capacity[key]) for key in keys) for keys in asked]

    verdicts = [tally.judge(wants(f"r{n}", *each)) for n, each in enumerate(uses)]

    taken = Counter(key for keys, verdict in zip(asked, verdicts, strict=True) if not verdict for key in keys)
    assert taken["a"] <= 1
    assert taken["b"] <= 3
    assert taken["c"] <= 3
    assert all(
        verdicts[n] is None for n, keys in enumerate(asked) if not any(set(keys) & set(k) for k in asked[:n])
    )
