"""Locks and run limits that several workers keep together: never too many, always in order, never lost."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import TimeoutError as PoolEmpty
from structlog.testing import capture_logs
from tests.flow.workers.members import Member, lapse, members, put_run, put_runs

from skep.flow.runs import Claim
from skep.flow.steps import RunId
from skep.flow.storage import tables
from skep.flow.storage.gate import SharedGate
from skep.flow.storage.wakeups import wakeups_for

LOCK = [Claim("app/x")]
POLL = 0.2


class Door:
    """A worker's gate, and who has passed it."""

    def __init__(
        self, member: Member, gate: SharedGate, passed: "list[RunId]", news: asyncio.Condition
    ) -> None:
        self.member = member
        self.gate = gate
        self.passed = passed
        self._news = news

    def request(self, run: RunId, claims: Sequence[Claim] = LOCK, priority: int = 2) -> None:
        self.gate.request(run, claims, priority, lambda: self._granted(run))

    async def end(self, run: RunId) -> None:
        """The run ends, as its worker records it."""
        await self.member.finish(run)
        self.gate.release(run)

    async def passes(self, run: RunId) -> None:
        async with asyncio.timeout(20), self._news:
            await self._news.wait_for(lambda: run in self.passed)

    def _granted(self, run: RunId) -> None:
        self.passed.append(run)
        self.telling = asyncio.create_task(self._tell())

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()


@asynccontextmanager
async def doors(url: str, count: int, *, poll: float = POLL) -> AsyncIterator[list[Door]]:
    """Of several workers; `passed` is one list for all of them, in the order of passing."""
    async with members(url, count) as joined, AsyncExitStack() as stack:
        passed: list[RunId] = []
        news = asyncio.Condition()
        made = []
        for member in joined:
            wakeups = wakeups_for(member.database)
            stack.push_async_callback(wakeups.close)
            gate = SharedGate(member.database, member.membership, wakeups, poll=poll)
            stack.push_async_callback(gate.close)
            made.append(Door(member, gate, passed, news))
        yield made


async def put(door: Door, *runs: str) -> list[RunId]:
    return await put_runs(door.member.database, runs, worker=door.member.id)


async def settled(door: Door) -> None:
    """Everything that was asked until now has been decided: a run that holds nothing else passes."""
    probe = await put_run(door.member.database, f"zz-{random.random()}", worker=door.member.id)
    door.request(probe, [Claim(f"probe/{probe}")])
    await door.passes(probe)
    door.passed.remove(probe)
    await door.end(probe)


async def test_who_wants_nothing_passes_at_once(url: str) -> None:
    async with doors(url, 1) as (door,):
        door.request(RunId("r1"), [])

        assert door.passed == ["r1"]


async def test_two_workers_do_not_give_the_same_lock_away(url: str) -> None:
    async with doors(url, 2) as (one, other):
        await put(one, "r1")
        await put(other, "r2")
        one.request(RunId("r1"))
        await one.passes(RunId("r1"))
        other.request(RunId("r2"))
        await settled(other)
        before = list(one.passed)

        await one.end(RunId("r1"))
        await other.passes(RunId("r2"))

        assert before == ["r1"]
        assert one.passed == ["r1", "r2"]


async def test_who_waits_elsewhere_is_woken_long_before_it_would_look(postgresql: str) -> None:
    async with doors(postgresql, 2, poll=600) as (one, other):
        await put(one, "r1")
        await put(other, "r2")
        one.request(RunId("r1"))
        await one.passes(RunId("r1"))
        other.request(RunId("r2"))
        await settled(other)

        await one.end(RunId("r1"))

        await other.passes(RunId("r2"))


async def test_runs_pass_by_priority_then_age_whoever_has_them(url: str) -> None:
    async with doors(url, 2) as (one, other):
        await put(one, "r0", "r3", "r5")
        await put(other, "r2", "r4", "r9")
        one.request(RunId("r0"))
        await one.passes(RunId("r0"))
        one.request(RunId("r5"))
        one.request(RunId("r3"), priority=4)
        other.request(RunId("r4"))
        other.request(RunId("r2"))
        other.request(RunId("r9"), priority=0)
        await settled(one)
        await settled(other)

        for run, owner, following in zip(
            ["r0", "r9", "r2", "r4", "r5"],
            (one, other, other, other, one),
            ["r9", "r2", "r4", "r5", "r3"],
            strict=True,
        ):
            await owner.end(RunId(run))
            await one.passes(RunId(following))

        assert one.passed == ["r0", "r9", "r2", "r4", "r5", "r3"]


async def test_a_key_of_capacity_two_is_held_by_two(url: str) -> None:
    async with doors(url, 2) as (one, other):
        await put(one, "r1", "r3")
        await put(other, "r2")
        builds = [Claim("builds", 2)]
        for door, run in ((one, "r1"), (other, "r2"), (one, "r3")):
            door.request(RunId(run), builds)
            await settled(door)

        (reason,) = one.gate.why(RunId("r3"))
        both = set(one.passed)
        await other.end(RunId("r2"))
        await one.passes(RunId("r3"))

        assert both == {"r1", "r2"}
        assert (reason.kind, reason.holders) == ("limit", ("r1", "r2"))
        assert reason.message == "builds is held by run r1, run r2: 2 of 2."


async def test_who_claims_a_key_alone_does_not_share_it_with_who_would_share(url: str) -> None:
    async with doors(url, 1) as (door,):
        await put(door, "r1", "r2", "r3")
        for run, capacity in (("r1", 2), ("r2", 1), ("r3", 2)):
            door.request(RunId(run), [Claim("disk", capacity)])
            await settled(door)
        first = list(door.passed)

        await door.end(RunId("r1"))
        await door.passes(RunId("r2"))
        await settled(door)

        assert (first, door.passed) == (["r1"], ["r1", "r2"])


async def test_a_run_gets_all_of_its_keys_or_none(url: str) -> None:
    async with doors(url, 2) as (one, other):
        await put(one, "r1", "r2")
        await put(other, "r3")
        one.request(RunId("r1"), [Claim("a")])
        await one.passes(RunId("r1"))
        one.request(RunId("r2"), [Claim("a"), Claim("b")])
        await settled(one)
        other.request(RunId("r3"), [Claim("b")])
        await settled(other)

        holders = await held(one)
        (why_r2, why_r3) = one.gate.why(RunId("r2")), other.gate.why(RunId("r3"))
        await one.end(RunId("r1"))
        await one.passes(RunId("r2"))
        await one.end(RunId("r2"))
        await other.passes(RunId("r3"))

        assert holders == {("a", "r1")}
        assert [reason.message for reason in why_r2] == ["a is held by run r1."]
        assert [reason.message for reason in why_r3] == ["run r2 waits for b before it."]


async def test_who_withdraws_lets_the_next_one_pass(url: str) -> None:
    async with doors(url, 1) as (door,):
        await put(door, "r1", "r2", "r3")
        door.request(RunId("r1"), [Claim("a")])
        await door.passes(RunId("r1"))
        door.request(RunId("r2"), [Claim("a"), Claim("b")])
        door.request(RunId("r3"), [Claim("b")])
        await settled(door)

        door.gate.release(RunId("r2"))
        await door.passes(RunId("r3"))
        await door.end(RunId("r1"))
        await settled(door)

        assert door.passed == ["r1", "r3"]
        assert door.gate.why(RunId("r2")) == ()


async def test_what_a_run_holds_goes_with_it_to_whoever_takes_it_over(url: str) -> None:
    async with doors(url, 2) as (dead, other):
        await put(dead, "r5")
        await put(other, "r1")
        dead.request(RunId("r5"))
        await dead.passes(RunId("r5"))
        other.request(RunId("r1"))
        await settled(other)
        await lapse(dead.member.database, dead.member.id)
        dead.passed.clear()

        assert await other.member.adopt() == ["r5"]
        other.request(RunId("r5"))
        await other.passes(RunId("r5"))
        await settled(other)
        assert other.passed == ["r5"]

        await other.end(RunId("r5"))
        await other.passes(RunId("r1"))


async def test_a_worker_that_is_held_for_dead_cannot_release_what_others_go_on_with(url: str) -> None:
    async with doors(url, 2) as (dead, other):
        await put(dead, "r1")
        dead.request(RunId("r1"))
        await dead.passes(RunId("r1"))
        await lapse(dead.member.database, dead.member.id)
        await other.member.adopt()

        dead.gate.release(RunId("r1"))
        await dead.gate.close()

        assert await held(other) == {("app/x", "r1")}


async def test_a_run_that_goes_on_elsewhere_keeps_what_it_holds_when_its_worker_leaves(url: str) -> None:
    async with doors(url, 1) as (door,):
        await put(door, "r1", "r2")
        door.request(RunId("r1"))
        door.request(RunId("r2"))
        await settled(door)

        for run in ("r1", "r2"):
            door.gate.release(RunId(run))
        await door.gate.close()

        assert await held(door) == {("app/x", "r1")}
        assert await rows(door) == 1


async def test_who_dies_between_the_end_of_a_run_and_the_release_blocks_nobody(url: str) -> None:
    async with doors(url, 2) as (dead, other):
        await put(dead, "r1")
        await put(other, "r2")
        dead.request(RunId("r1"))
        await dead.passes(RunId("r1"))
        other.request(RunId("r2"))
        await settled(other)

        await dead.member.finish(RunId("r1"))

        await other.passes(RunId("r2"))
        assert await held(other) == {("app/x", "r2")}


async def test_a_run_that_waited_when_its_worker_died_gets_nothing_while_nobody_has_it(url: str) -> None:
    async with doors(url, 3) as (dead, holder, other):
        await put(holder, "r1")
        await put(dead, "r2")
        await put(other, "r3")
        for door, run in ((holder, "r1"), (dead, "r2"), (other, "r3")):
            door.request(RunId(run))
            await settled(door)
        await lapse(dead.member.database, dead.member.id)
        await other.member.adopt(0)

        await holder.end(RunId("r1"))

        await other.passes(RunId("r3"))
        assert await held(other) == {("app/x", "r3")}


async def test_a_run_that_is_taken_up_again_can_have_its_keys_again(url: str) -> None:
    async with doors(url, 1) as (door,):
        await put(door, "r1")
        for _ in range(2):
            door.request(RunId("r1"))
            await door.passes(RunId("r1"))
            door.passed.clear()
            door.gate.release(RunId("r1"))

        door.request(RunId("r1"))
        await door.passes(RunId("r1"))


@pytest.mark.parametrize("seed", range(2))
async def test_whatever_workers_do_no_key_is_ever_over_capacity_and_everybody_passes(
    url: str, seed: int
) -> None:
    """40 runs with random keys on three workers, one of which dies on the way."""
    chance = random.Random(seed)
    capacity = {"a": 1, "b": 1, "c": 2, "d": 3}
    async with doors(url, 3, poll=0.1) as made:
        todo = {
            RunId(f"r{n:02}"): [Claim(k, capacity[k]) for k in chance.sample("abcd", chance.randint(1, 3))]
            for n in range(40)
        }
        inside: set[RunId] = set()
        most: Counter[str] = Counter()

        async def carry_out(door: Door, run: RunId) -> None:
            await asyncio.sleep(chance.uniform(0, 0.05))
            door.request(run, todo[run], chance.randint(0, 4))
            await door.passes(run)
            inside.add(run)
            most.update(over(capacity, Counter(claim.key for run in inside for claim in todo[run])))
            await asyncio.sleep(chance.uniform(0, 0.02))
            inside.remove(run)
            await door.member.finish(run)
            if chance.random() < 0.8:  # or it dies before it comes to it
                door.gate.release(run)

        victim, *living = made
        mine = {door: await put(door, *list(todo)[n::3]) for n, door in enumerate(made)}
        tasks = {door: [asyncio.create_task(carry_out(door, run)) for run in mine[door]] for door in made}
        await victim.passes(mine[victim][0])
        for task in tasks[victim]:
            task.cancel()
        await asyncio.wait(tasks[victim])
        await lapse(victim.member.database, victim.member.id)
        adopted = [(door, run) for door in living for run in await door.member.adopt(7)]
        victim.passed[:] = [run for run in victim.passed if run not in {run for _, run in adopted}]
        work = [carry_out(door, run) for door, run in adopted]
        await asyncio.gather(*work, *tasks[living[0]], *tasks[living[1]])

        assert adopted
        assert await unfinished(living[0]) == 0
        assert most == {}


def over(capacity: Mapping[str, int], holding: Mapping[str, int]) -> dict[str, int]:
    """The keys that too many hold."""
    return {key: count for key, count in holding.items() if count > capacity[key]}


async def unfinished(door: Door) -> int:
    async with door.member.database.read() as connection:
        query = select(func.count()).select_from(tables.runs).where(tables.runs.c.finished.is_(None))
        return (await connection.execute(query)).scalar_one()


async def held(door: Door) -> set[tuple[str, str]]:
    async with door.member.database.read() as connection:
        query = select(tables.locks.c.key, tables.locks.c.run).where(tables.locks.c.held.is_(True))
        return {(row.key, row.run) for row in await connection.execute(query) if "probe" not in row.key}


async def rows(door: Door) -> int:
    async with door.member.database.read() as connection:
        query = select(func.count()).select_from(tables.locks).where(tables.locks.c.key.not_like("probe%"))
        return (await connection.execute(query)).scalar_one()


async def test_a_gate_goes_on_once_its_database_has_connections_again(postgresql: str) -> None:
    """All of the pool may wait for what somebody has locked who hangs."""
    async with doors(postgresql, 1) as (door,):
        pool: Any = door.member.database.engine.pool
        pool._timeout = 0.05
        (run,) = await put(door, "a")
        async with AsyncExitStack() as others:
            with suppress(PoolEmpty):
                while True:
                    await others.enter_async_context(door.member.database.engine.connect())
            door.request(run)
            with capture_logs() as logs:
                while not logs:
                    await asyncio.sleep(0.01)

        await door.passes(run)

        assert [line["event"] for line in logs] == ["flow.gate_failed"]
