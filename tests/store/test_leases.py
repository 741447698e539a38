"""Leases by name."""

import asyncio

from skep.control.leadership import Leadership
from skep.flow import Database
from skep.flow.storage.shared import transact
from skep.store import leases
from skep.store.schema import migrate


async def take(database: Database, holder: str, seconds: float = 60.0) -> int | None:
    return await transact(database, lambda tx: leases.take(tx, "post", holder, seconds))


async def test_one_at_a_time_has_a_lease_and_may_prolong_it(database: Database) -> None:
    first = [await take(database, "a"), await take(database, "a")]
    other = await take(database, "b")

    assert first == [1, 1]
    assert other is None


async def test_a_lease_that_ran_out_changes_hands_with_a_greater_epoch(database: Database) -> None:
    await take(database, "a", seconds=0.05)
    await asyncio.sleep(0.1)

    assert await take(database, "b") == 2
    assert await take(database, "a") is None


async def test_a_lease_that_was_given_back_is_there_at_once(database: Database) -> None:
    await take(database, "a")
    await transact(database, lambda tx: leases.give_back(tx, "post", "b"))
    kept = await take(database, "b")
    await transact(database, lambda tx: leases.give_back(tx, "post", "a"))

    assert kept is None
    assert await take(database, "b") == 2


async def test_of_several_processes_one_leads_and_another_takes_over(database: Database) -> None:
    led: list[tuple[str, int]] = []

    def work(name: str) -> "asyncio.Task[None]":
        async def lead(epoch: int) -> None:
            led.append((name, epoch))
            await asyncio.Event().wait()

        return asyncio.create_task(Leadership(database, "post", name, lease=0.4).run(lead))

    first, second = work("a"), work("b")
    await asyncio.sleep(1.0)
    before = list(led)
    first.cancel() if before[0][0] == "a" else second.cancel()
    await asyncio.sleep(0.6)
    for task in (first, second):
        task.cancel()
    await asyncio.gather(first, second, return_exceptions=True)

    assert len(before) == 1
    assert [epoch for _, epoch in led] == [1, 2]
    assert {name for name, _ in led} == {"a", "b"}


async def test_several_processes_may_migrate_at_once(url: str) -> None:
    opened = [await Database.open(url, durable=False) for _ in range(3)]
    try:
        if not url.startswith("sqlite"):  # which has one process
            await asyncio.gather(*(migrate(one.engine) for one in opened))
        await migrate(opened[0].engine)

        assert await take(opened[0], "a") == 1
    finally:
        for one in opened:
            await one.close()
