"""Many workers on one database: every run has one of them, and a dead one's word counts no more."""

import asyncio
import time
from collections import Counter
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Table, func, insert, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection
from tests.flow.workers.members import lapse, members, owners, put_run, put_runs

from skep.flow import Database
from skep.flow.errors import Fenced
from skep.flow.runs import Signal, StepRow, StepState
from skep.flow.steps import RunId
from skep.flow.storage import inbox, tables, unfinished
from skep.flow.storage.journal import Journal
from skep.flow.storage.membership import Membership, News


async def test_a_run_that_nobody_has_is_taken_once(url: str) -> None:
    async with members(url, 2) as (one, other):
        run = await put_run(one.database, "r1", epoch=4)

        (stored,) = await one.membership.adopt(10)

        assert (stored.row.id, stored.row.epoch, stored.row.worker) == (run, 5, one.id)
        assert not stored.crashed
        assert await other.adopt() == []


async def test_runs_are_taken_by_priority_then_age_and_no_more_than_there_is_room_for(url: str) -> None:
    async with members(url, 1) as (one,):
        await put_runs(one.database, ["r1", "r3", "r4"])
        await put_run(one.database, "r2", priority=0)

        assert await one.adopt(0) == []
        assert await one.adopt(2) == ["r2", "r1"]
        assert await one.adopt(9) == ["r3", "r4"]


async def test_a_run_that_has_ended_is_left_alone(url: str) -> None:
    async with members(url, 1) as (one,):
        await put_run(one.database, "r1", finished=5.0)

        assert await one.adopt() == []


async def test_the_runs_of_a_living_worker_stay_with_it(url: str) -> None:
    async with members(url, 2) as (one, other):
        await put_run(one.database, "r1", worker=one.id)
        await put_run(one.database, "r2")

        assert await other.adopt() == ["r2"]
        assert await owners(one.database) == {"r1": one.id, "r2": other.id}


async def test_the_runs_of_a_dead_worker_go_to_another_who_learns_of_the_crash(url: str) -> None:
    async with members(url, 2) as (dead, other):
        await put_runs(dead.database, ["r1", "r2"], worker=dead.id)
        await put_run(dead.database, "r0")
        await dead.membership.suspect(RunId("r2"))
        await lapse(dead.database, dead.id)

        stored = await other.membership.adopt(10)

        assert [(s.row.id, s.crashed, s.suspect) for s in stored] == [
            ("r1", True, False),
            ("r2", True, True),
            ("r0", False, False),
        ]


async def test_who_goes_alone_no_more_is_no_suspect(url: str) -> None:
    async with members(url, 2) as (dead, other):
        await put_run(dead.database, "r1", worker=dead.id)
        await dead.membership.suspect(RunId("r1"))
        await dead.membership.suspect(None)
        await lapse(dead.database, dead.id)

        (stored,) = await other.membership.adopt(10)

        assert (stored.crashed, stored.suspect) == (True, False)


async def test_a_worker_that_was_abandoned_loses_its_runs_when_its_lease_has_run_out(url: str) -> None:
    async with members(url, 2, lease=0.4) as (dead, other):
        await put_run(dead.database, "r1", worker=dead.id)
        await dead.database.abandon()
        started = time.monotonic()
        before = await other.adopt()

        while not (await other.membership.renew()).dead:
            await asyncio.sleep(0.02)
        adopted = await other.adopt()

        assert (before, adopted) == ([], ["r1"])
        assert 0.3 < time.monotonic() - started < 3.0


async def test_a_lease_that_is_renewed_does_not_run_out(url: str) -> None:
    async with members(url, 2, lease=0.6) as (one, other):
        await put_run(one.database, "r1", worker=one.id)
        ends = time.monotonic() + 0.9
        while time.monotonic() < ends:
            await one.membership.renew()
            await other.membership.renew()
            assert await other.adopt() == []
            await asyncio.sleep(0.1)

        await one.commit(RunId("r1"), "still here")


async def test_nothing_of_a_commit_is_stored_when_its_worker_is_held_for_dead(url: str) -> None:
    async with members(url, 2) as (old, new):
        run = await put_run(old.database, "r1", worker=old.id)
        await old.commit(run, "before")
        await lapse(old.database, old.id)
        await new.adopt()

        with pytest.raises(Fenced, match="held for dead"):
            await old.commit(run, "after")
        await new.commit(run, "by the new one")

        assert await steps_of(new.database, run) == {"before", "by the new one"}


async def test_a_journal_whose_worker_is_held_for_dead_writes_nothing_more(url: str) -> None:
    async with members(url, 2) as (old, new):
        run = await put_run(old.database, "r1", worker=old.id)
        refused = asyncio.Event()
        journal = Journal(old.database, old.membership.check, refused.set)
        journal.save_step(run, "a", StepRow(StepState.SUCCEEDED, result=b"1"))
        await journal.flushed()
        await lapse(old.database, old.id)
        await new.adopt()

        both_believe = Journal(new.database, new.membership.check)
        both_believe.save_step(run, "b", StepRow(StepState.SUCCEEDED, result=b"2"))
        journal.save_step(run, "b", StepRow(StepState.FAILED))
        journal.save_step(run, "c", StepRow(StepState.FAILED))
        await both_believe.flushed()
        await refused.wait()

        async with new.database.read() as connection:
            (stored,) = await unfinished.load(connection, [run])
        assert {name: row.state for name, row in stored.steps.items()} == {"a": "succeeded", "b": "succeeded"}


@pytest.mark.parametrize("rows", [1, 2])
async def test_nor_does_one_that_looks_at_its_lease_in_the_same_go(url: str, rows: int) -> None:
    async with members(url, 2) as (old, new):
        run = await put_run(old.database, "r1", worker=old.id)
        refused = asyncio.Event()
        journal = Journal(old.database, old.membership.check, refused.set, lease=old.membership.lease)
        for number in range(rows):
            journal.save_step(run, f"before{number}", StepRow(StepState.SUCCEEDED, result=b"1"))
        await journal.flushed()
        await lapse(old.database, old.id)
        await new.adopt()

        for number in range(rows):
            journal.save_step(run, f"before{number}", StepRow(StepState.FAILED))
            journal.save_step(run, f"after{number}", StepRow(StepState.FAILED))
        await refused.wait()
        await new.commit(run, "by the new one")

        async with new.database.read() as connection:
            (stored,) = await unfinished.load(connection, [run])
        assert {name: row.state for name, row in stored.steps.items() if name != "by the new one"} == {
            f"before{number}": "succeeded" for number in range(rows)
        }


async def test_a_worker_that_is_held_for_dead_hears_of_it_wherever_it_asks(url: str) -> None:
    async with members(url, 2) as (old, new):
        await put_run(old.database, "r1", worker=old.id)
        await lapse(old.database, old.id)
        await new.adopt()

        for ask in (old.membership.renew(), old.membership.adopt(1), old.membership.suspect(None)):
            with pytest.raises(Fenced):
                await ask
        await old.membership.leave()  # has nothing to give back

        assert await owners(new.database) == {"r1": new.id}


async def test_a_lease_that_ran_out_unnoticed_can_still_be_renewed(url: str) -> None:
    async with members(url, 2) as (one, other):
        await put_run(one.database, "r1", worker=one.id)
        await lapse(one.database, one.id)

        await one.membership.renew()

        assert await other.adopt() == []


async def test_what_was_committed_before_the_fencing_is_there_for_the_adopter(postgresql: str) -> None:
    async with members(postgresql, 2) as (old, new):
        run = await put_run(old.database, "r1", worker=old.id)
        await lapse(old.database, old.id)
        async with old.database.engine.begin() as commit:
            await old.membership.check(commit)
            in_the_middle = await new.adopt()
            await commit.execute(update(tables.runs).where(tables.runs.c.id == run).values(error="seen"))

        (stored,) = await new.membership.adopt(10)

        assert in_the_middle == []
        assert stored.row.error == "seen"


async def test_a_process_that_hangs_inside_a_commit_is_cut_off(postgresql: str) -> None:
    async with members(postgresql, 2, lease=0.1) as (hanging, other):
        await put_run(hanging.database, "r1", worker=hanging.id)
        commit = await hanging.database.engine.connect()
        await hanging.membership.check(commit)

        while not await other.adopt():
            await other.membership.renew()
            await asyncio.sleep(0.05)

        with pytest.raises(DBAPIError):
            await commit.execute(select(1))
        await commit.invalidate()
        await commit.close()


async def test_two_that_adopt_at_once_never_get_the_same_run(url: str) -> None:
    async with members(url, 4) as (dead, *living):
        await put_runs(dead.database, [f"r{n:03}" for n in range(100)])
        await put_runs(dead.database, [f"s{n:03}" for n in range(100)], worker=dead.id)
        await lapse(dead.database, dead.id)

        taken = Counter[str]()
        while sum(taken.values()) < 200:
            for runs in await asyncio.gather(*(member.adopt(17) for member in living * 2)):
                taken.update(runs)

        assert max(taken.values()) == 1
        assert set((await owners(dead.database)).values()) == {member.id for member in living}


async def test_who_leaves_gives_its_runs_back(url: str) -> None:
    async with members(url, 2) as (one, other):
        await put_runs(one.database, ["r1", "r2"], worker=one.id)
        await one.finish(RunId("r1"))

        await one.membership.leave()
        (stored,) = await other.membership.adopt(10)

        assert (stored.row.id, stored.crashed) == ("r2", False)
        with pytest.raises(Fenced):
            await one.membership.renew()


async def test_who_has_the_database_for_itself_takes_everything_at_once(url: str) -> None:
    async with members(url, 2) as (one, other):
        await put_run(one.database, "r1", worker=one.id)
        await put_run(one.database, "r2", worker=other.id)
        await put_run(one.database, "r3")
        alone = Membership(one.database, shared=False)
        await alone.join()

        stored = await alone.adopt(10)

        assert [(s.row.id, s.crashed) for s in stored] == [("r1", True), ("r2", True), ("r3", False)]
        for member in (one, other):
            with pytest.raises(Fenced):
                await member.membership.renew()


async def test_of_several_that_want_the_database_for_themselves_one_has_it(url: str) -> None:
    async with members(url, 4, shared=False) as joined:
        rivals = [Membership(member.database, shared=False) for member in joined]
        await asyncio.gather(*(rival.join() for rival in rivals))

        answers = await asyncio.gather(*(rival.renew() for rival in rivals), return_exceptions=True)

        assert sorted(type(answer).__name__ for answer in answers) == ["Fenced", "Fenced", "Fenced", "News"]


async def test_members_that_share_take_over_from_one_that_did_not(url: str) -> None:
    async with members(url, 1, shared=False) as (alone,):
        await put_run(alone.database, "r1", worker=alone.id)
        first, second = (Membership(alone.database, shared=True) for _ in range(2))
        await first.join()
        await second.join()

        assert [stored.row.id for stored in await first.adopt(10)] == ["r1"]
        await second.renew()


async def test_a_clock_that_jumps_forward_costs_nobody_a_run(url: str) -> None:
    async with members(url, 3) as joined:
        database = joined[0].database
        for member in joined:
            await put_runs(database, [f"{member.id}-{n}" for n in range(5)], worker=member.id)
        for member in joined:
            await lapse(database, member.id)

        answers = await asyncio.gather(*(member.adopt() for member in joined), return_exceptions=True)
        living = {m.id for m, answer in zip(joined, answers, strict=True) if not isinstance(answer, Fenced)}

        assert set((await owners(database)).values()) <= living


async def test_a_clock_that_is_put_back_does_not_keep_the_dead_alive(url: str) -> None:
    async with members(url, 2, lease=0.1) as (dead, other):
        await put_run(dead.database, "r1", worker=dead.id)
        ahead = (
            update(tables.workers).where(tables.workers.c.id == dead.id).values(expires=time.time() + 3600)
        )
        await dead.database.write(lambda connection: connection.execute(ahead))

        news = await other.membership.renew()
        adopted = await other.adopt()
        while not adopted:
            await asyncio.sleep(0.05)
            if (await other.membership.renew()).dead:
                adopted = await other.adopt()

        assert news.dead
        assert adopted == ["r1"]


async def test_the_rows_of_dead_workers_go_when_nothing_is_left_of_them(url: str) -> None:
    async with members(url, 2) as (dead, other):
        await put_runs(dead.database, ["r1", "r2"], worker=dead.id)
        await lapse(dead.database, dead.id)

        counts = []
        for _ in range(3):
            counts.append(len(await workers(other.database)))
            await other.membership.adopt(1)

        assert counts == [2, 2, 1]
        assert await workers(other.database) == {other.id}


async def test_a_worker_hears_what_there_is_for_it_to_do(url: str) -> None:
    async with members(url, 2) as (one, other):
        nothing = News(unowned=False, dead=False, requests=False, signals=False)
        run = await put_run(one.database, "r1", worker=one.id)
        assert await one.membership.renew() == nothing

        await put_run(one.database, "r2")
        assert (await one.membership.renew()).unowned
        await other.adopt()
        assert await one.membership.renew() == nothing

        await inbox.ask(one.database, run, "pause", b"{}", "ann")
        assert await one.membership.renew() == News(unowned=False, dead=False, requests=True, signals=False)
        assert not (await other.membership.renew()).requests

        await lapse(one.database, other.id)
        assert (await one.membership.renew()).dead


async def test_a_signal_is_news_once(url: str) -> None:
    async with members(url, 2) as (one, other):
        run = await put_run(one.database, "r1", worker=one.id)
        signal = Signal(id="s1", name="paid", body=b"1", by="ann", at=7.0)
        await one.database.write(lambda connection: inbox.add_signal(connection, run, signal))

        heard = [(await one.membership.renew()).signals for _ in range(3)]

        assert heard == [True, False, False]
        assert not (await other.membership.renew()).signals


async def test_an_adopter_gets_all_that_it_takes_to_go_on(url: str) -> None:
    async with members(url, 1) as (one,):
        run = await put_run(one.database, "r1", locks='[["app/x", 1]]', labels='{"app": "x"}', paused=True)
        await put_run(one.database, "r2")
        await fill(one.database, run)

        stored, other = await one.membership.adopt(10)

        assert (stored.content, stored.sequence, other.sequence) == (b"{}", 7, 0)
        assert (stored.row.labels, stored.row.locks[0].key, stored.row.paused) == (
            {"app": "x"},
            "app/x",
            True,
        )
        assert {name: (step.state, step.result) for name, step in stored.steps.items()} == {
            "a": ("succeeded", b"1"),
            "b": ("running", None),
        }
        assert [signal.id for signal in stored.signals] == ["s3", "s1"]
        assert other.steps == {}


async def test_a_thousand_runs_are_taken_over_in_seconds(url: str) -> None:
    async with members(url, 2) as (dead, other):
        runs = await put_runs(dead.database, [f"r{n:04}" for n in range(1000)], worker=dead.id)
        await fill_steps(dead.database, runs, 20)
        await lapse(dead.database, dead.id)
        started = time.monotonic()

        stored = await other.membership.adopt(1000)

        assert [len(item.steps) for item in stored] == [20] * 1000
        assert time.monotonic() - started < 10


async def test_runs_of_workers_that_nobody_knows_are_found_by_who_joins(url: str) -> None:
    async with members(url, 1) as (one,):
        await put_run(one.database, "r1", worker="long-forgotten")
        fresh = Membership(one.database, shared=True)
        await fresh.join()

        assert [stored.row.id for stored in await fresh.adopt(10)] == ["r1"]


async def steps_of(database: Database, run: RunId) -> set[str]:
    async with database.read() as connection:
        found = await connection.execute(select(tables.steps.c.step).where(tables.steps.c.run == run))
        return set(found.scalars())


async def workers(database: Database) -> set[str]:
    async with database.read() as connection:
        return set((await connection.execute(select(tables.workers.c.id))).scalars())


async def fill(database: Database, run: RunId) -> None:
    step = {"run": run, "attempts": 1, "undo_attempts": 0, "error": "", "message": ""}
    event = {"run": run, "step": "", "kind": "started", "at": 0.0, "message": ""}
    signal = {"run": run, "name": "go", "body": b"1", "by": "ann"}
    rows: dict[Table, list[dict[str, Any]]] = {
        tables.steps: [
            step | {"step": "a", "state": "succeeded", "result": b"1"},
            step | {"step": "b", "state": "running", "result": None},
        ],
        tables.events: [event | {"sequence": n} for n in range(1, 8)],
        tables.signals: [
            signal | {"id": "s1", "at": 3.0, "step": None},
            signal | {"id": "s2", "at": 2.0, "step": "a"},
            signal | {"id": "s3", "at": 1.0, "step": None},
        ],
    }
    for table, values in rows.items():
        await database.write(partial(put, table=table, values=values))


async def put(connection: AsyncConnection, *, table: Table, values: list[dict[str, Any]]) -> None:
    await connection.execute(insert(table), values)


async def fill_steps(database: Database, runs: list[RunId], count: int) -> None:
    step = {
        "attempts": 1,
        "undo_attempts": 0,
        "error": "",
        "message": "",
        "state": "succeeded",
        "result": b"1",
    }
    values = [step | {"run": run, "step": f"s{n}"} for run in runs for n in range(count)]
    await database.write(lambda connection: connection.execute(insert(tables.steps), values))
    async with database.read() as connection:
        assert (await connection.execute(select(func.count()).select_from(tables.steps))).scalar() == len(
            values
        )
