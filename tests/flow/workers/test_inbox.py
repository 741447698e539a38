"""Requests and signals wait in the tables until the worker that has the run looks."""

import asyncio

import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from tests.flow.workers.members import Member, members, put_run, put_runs

from skep.flow.errors import UnknownRun
from skep.flow.runs import Request, Signal
from skep.flow.steps import RunId
from skep.flow.storage import tables
from skep.flow.storage.inbox import add_signal, ask, reply_of, requests_for, signals_for
from skep.flow.storage.wakeups import ANYTHING, reply_topic, wakeups_for, worker_topic


async def test_a_request_reaches_the_worker_of_its_run_and_no_other(url: str) -> None:
    async with members(url, 2) as (one, other):
        run = await put_run(one.database, "r1", worker=one.id)

        request = await ask(other.database, run, "pause", b'{"a":1}', "ann")

        assert await requests(one) == [Request(request, run, "pause", b'{"a":1}', "ann")]
        assert await requests(other) == []


async def test_a_request_waits_for_whoever_takes_the_run(url: str) -> None:
    async with members(url, 1) as (one,):
        run = await put_run(one.database, "r1")
        request = await ask(one.database, run, "pause", b"{}", "ann")
        before = await requests(one)

        await one.adopt()

        assert before == []
        assert [found.id for found in await requests(one)] == [request]


async def test_requests_come_in_the_order_of_asking(url: str) -> None:
    async with members(url, 1) as (one,):
        runs = await put_runs(one.database, ["r1", "r2"], worker=one.id)

        asked = [await ask(one.database, run, "pause", b"{}", "ann") for run in runs * 3]

        assert [found.id for found in await requests(one)] == asked


async def test_the_reply_comes_back_and_the_request_is_gone(url: str) -> None:
    async with members(url, 2) as (one, asker):
        run = await put_run(one.database, "r1", worker=one.id)
        request = await ask(asker.database, run, "pause", b"{}", "ann")
        waiting = asyncio.create_task(reply_of(asker.database, request, 10))
        await answer(one, request, b'"done"')

        reply = await waiting

        assert reply == b'"done"'
        assert await everything_asked(one) == []


async def test_a_reply_is_fetched_as_soon_as_a_wake_up_tells_of_it(url: str) -> None:
    async with members(url, 1) as (one,):
        wakeups = wakeups_for(one.database)
        run = await put_run(one.database, "r1", worker=one.id)
        request = await ask(one.database, run, "pause", b"{}", "ann")
        waiting = asyncio.create_task(reply_of(one.database, request, 10, wakeups))
        await answer(one, request, b"1")
        wakeups.notify(reply_topic(request))

        assert await waiting == b"1"
        await wakeups.close()


async def test_who_runs_out_of_patience_gets_nothing_and_the_request_stays(url: str) -> None:
    async with members(url, 1) as (one,):
        run = await put_run(one.database, "r1", worker=one.id)
        request = await ask(one.database, run, "pause", b"{}", "ann")

        assert await reply_of(one.database, request, 0.05) is None
        assert [found.id for found in await requests(one)] == [request]


async def test_an_answered_request_is_not_shown_to_the_worker_again(url: str) -> None:
    async with members(url, 1) as (one,):
        run = await put_run(one.database, "r1", worker=one.id)
        request = await ask(one.database, run, "pause", b"{}", "ann")

        await answer(one, request, b"1")

        assert await requests(one) == []
        assert not (await one.membership.renew()).requests


async def test_nothing_can_be_said_to_a_run_that_does_not_exist(url: str) -> None:
    async with members(url, 1) as (one,):
        with pytest.raises(UnknownRun, match="r9"):
            await ask(one.database, RunId("r9"), "pause", b"{}", "ann")
        with pytest.raises(UnknownRun, match="r9"):
            await send(one, RunId("r9"), "s1")


async def test_a_signal_of_the_same_id_is_kept_once(url: str) -> None:
    async with members(url, 2) as (one, other):
        run, second = await put_runs(one.database, ["r1", "r2"], worker=one.id)

        kept = await asyncio.gather(*(send(member, run, "s1") for member in (one, other) * 5))
        elsewhere = await send(one, second, "s1")

        assert (kept.count(True), elsewhere) == (1, True)
        assert [(run, signal.id) for run, signal in await signals(one)] == [("r1", "s1"), ("r2", "s1")]


async def test_a_worker_finds_the_signals_that_no_step_has_taken_oldest_first(url: str) -> None:
    async with members(url, 2) as (one, other):
        mine = await put_run(one.database, "r1", worker=one.id)
        foreign = await put_run(one.database, "r2", worker=other.id)
        ended = await put_run(one.database, "r3", worker=one.id, finished=1.0)
        for run, signal, at in (
            (mine, "late", 9.0),
            (mine, "early", 2.0),
            (foreign, "x", 1.0),
            (ended, "y", 1.0),
        ):
            await send(one, run, signal, at)
        await send(one, mine, "taken", 1.0, step="wait")

        found = await signals(one)

        assert [(run, signal.id) for run, signal in found] == [("r1", "early"), ("r1", "late")]
        assert found[0][1] == Signal(id="early", name="paid", body=b"1", by="ann", at=2.0)


async def test_the_worker_is_woken_by_what_is_said_to_its_run(postgresql: str) -> None:
    async with members(postgresql, 2) as (one, other):
        wakeups = wakeups_for(one.database)
        heard: asyncio.Queue[str] = asyncio.Queue()
        wakeups.listen(heard.put_nowait)
        run = await put_run(one.database, "r1", worker=one.id)
        async with asyncio.timeout(10):
            assert await heard.get() == ANYTHING
            await ask(other.database, run, "pause", b"{}", "ann")
            assert await heard.get() == worker_topic(one.id)
            await send(other, run, "s1")
            assert await heard.get() == worker_topic(one.id)
        await wakeups.close()


async def send(member: Member, run: RunId, signal: str, at: float = 5.0, step: str | None = None) -> bool:
    said = Signal(id=signal, name="paid", body=b"1", by="ann", at=at, step=step)
    return await member.database.write(lambda connection: add_signal(connection, run, said))


async def requests(member: Member) -> list[Request]:
    async with member.database.read() as connection:
        return await requests_for(connection, member.id)


async def signals(member: Member) -> list[tuple[RunId, Signal]]:
    async with member.database.read() as connection:
        return await signals_for(connection, member.id)


async def answer(member: Member, request: str, reply: bytes) -> None:
    async def change(connection: AsyncConnection) -> None:
        asked = tables.inbox.c.id == request
        await connection.execute(update(tables.inbox).where(asked).values(reply=reply))

    await member.database.write(change)


async def everything_asked(member: Member) -> list[str]:
    async with member.database.read() as connection:
        return list((await connection.execute(select(tables.inbox.c.id))).scalars())
