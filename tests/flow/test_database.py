"""Group commit: changes that wait share a commit, and each stands or falls alone."""

import asyncio
from functools import partial
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow import CommitFailed, Database
from skep.flow.storage import drivers
from skep.flow.storage.database import Outage
from skep.flow.storage.effects import watched
from skep.flow.testing import BrokenAtCommit, CrashingDatabase


@pytest.fixture(autouse=True)
async def table(database: Database) -> None:
    await database.write(lambda c: c.exec_driver_sql("CREATE TABLE t(n INTEGER PRIMARY KEY)"))


async def insert(connection: AsyncConnection, n: int) -> int:
    await connection.execute(text("INSERT INTO t VALUES (:n)"), {"n": n})
    return n


async def numbers(database: Database) -> list[int]:
    async with database.read() as connection:
        return [row.n for row in await connection.execute(text("SELECT n FROM t ORDER BY n"))]


async def test_changes_that_wait_at_the_same_time_share_a_commit(url: str) -> None:
    database = await CrashingDatabase.open(url, durable=False)
    database.arm(None)

    answers = await asyncio.gather(*(database.write(partial(insert, n=n)) for n in range(50)))

    assert answers == list(range(50))
    assert database.points == 2  # one commit
    await database.close()


async def test_a_change_that_fails_takes_back_its_own_writes_only(database: Database) -> None:
    async def half(connection: AsyncConnection) -> None:
        await insert(connection, 7)
        raise KeyError("no")

    results = await asyncio.gather(
        database.write(lambda c: insert(c, 1)),
        database.write(half),
        database.write(lambda c: insert(c, 1)),
        database.write(lambda c: insert(c, 2)),
        return_exceptions=True,
    )

    assert [type(result).__name__ for result in results] == ["int", "KeyError", "IntegrityError", "int"]
    assert await numbers(database) == [1, 2]


async def test_what_is_written_through_a_reader_is_not_kept(database: Database) -> None:
    async with database.read() as connection:
        await insert(connection, 1)

    assert await numbers(database) == []


async def test_a_caller_that_gives_up_before_its_change_began_takes_it_back(database: Database) -> None:
    gate = asyncio.Event()

    async def slow(_connection: AsyncConnection) -> None:
        await gate.wait()

    first = asyncio.create_task(database.write(slow))
    second = asyncio.create_task(database.write(lambda c: insert(c, 1)))
    await asyncio.sleep(0.01)
    second.cancel()
    await asyncio.sleep(0)
    gate.set()
    await first
    await database.write(lambda c: insert(c, 2))

    assert await numbers(database) == [2]


async def test_a_failing_transaction_fails_all_its_changes_and_the_next_one_works(
    database: Database,
) -> None:
    async def broken(_connection: AsyncConnection) -> Any:
        raise OSError("the disk is full")

    first = database.submit(lambda c: insert(c, 1))
    outcome: list[Exception | None] = []
    database.submit(broken, isolated=False, answered=outcome.append)

    with pytest.raises(CommitFailed, match="the disk is full"):
        await first
    assert str(outcome[0]) == "the database did not take the change: the disk is full"
    assert await database.write(lambda c: insert(c, 3)) == 3
    assert await numbers(database) == [3]


async def test_a_change_cannot_wait_for_another_change(database: Database) -> None:
    async def nested(_connection: AsyncConnection) -> int:
        return await database.write(lambda c: insert(c, 1))

    with pytest.raises(RuntimeError, match="write"):
        await database.write(nested)


async def test_a_closed_database_says_so(url: str) -> None:
    database = await Database.open(url, durable=False)
    await database.close()

    with pytest.raises(CommitFailed, match="closed"):
        await database.write(lambda c: insert(c, 1))


async def test_readers_that_are_cancelled_leave_nothing_behind(database: Database) -> None:
    tasks = [asyncio.create_task(numbers(database)) for _ in range(20)]
    await asyncio.sleep(0.001)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert all(result == [] for result in results[1::2])
    assert await numbers(database) == []


async def test_what_became_of_a_change_is_in_doubt_if_the_connection_breaks_at_its_commit(url: str) -> None:
    database = await BrokenAtCommit.open(url, durable=False)
    database.breaks = 1

    with watched() as effects, pytest.raises(CommitFailed) as caught:
        await database.write(lambda c: insert(c, 1))
    with watched() as none, pytest.raises(ZeroDivisionError):
        await database.write(divide_by_zero)

    assert caught.value.in_doubt
    assert effects.done
    assert not none.done
    assert await numbers(database) == [1]
    await database.close()


def test_an_outage_begins_when_nobody_gets_an_answer_and_ends_with_one() -> None:
    outage = Outage()

    waited = [outage.seen(at - 1, at) for at in (100.0, 104.0, 112.0)]
    outage.ended()
    after = [outage.seen(at, at) for at in (200.0, 201.0)]
    much_later = outage.seen(1000.0, 1005.0)

    assert (waited, after, much_later) == ([1.0, 5.0, 13.0], [0.0, 1.0], 5.0)


async def divide_by_zero(_connection: AsyncConnection) -> float:
    return 1 / 0


async def test_who_hangs_in_the_middle_of_a_transaction_keeps_others_waiting_for_a_while_only(
    postgresql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drivers, "STALLED_MS", 200)
    hanging, other = [await Database.open(postgresql, durable=False) for _ in range(2)]
    await other.write(lambda c: c.exec_driver_sql("CREATE TABLE t(n INTEGER PRIMARY KEY)"))
    await other.write(lambda c: insert(c, 1))

    async with hanging.engine.connect() as connection:
        await connection.exec_driver_sql("UPDATE t SET n = 2")
        await other.write(lambda c: c.exec_driver_sql("UPDATE t SET n = 3"))

        with pytest.raises(DBAPIError):
            await connection.commit()

    assert await numbers(other) == [3]
    await hanging.close()
    await other.close()
