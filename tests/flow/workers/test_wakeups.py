"""Wake-ups reach those who listen, in this process and in others; none of them is the truth."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.flow.postgresql import Cluster

from skep.flow import Database
from skep.flow.storage.wakeups import ANYTHING, Wakeups, tell, wakeups_for


class Ear:
    """What was heard, and a way to wait for it."""

    def __init__(self, wakeups: Wakeups) -> None:
        self.heard: list[str] = []
        self._news = asyncio.Event()
        self.end = wakeups.listen(self._hear)

    async def hears(self, topic: str) -> None:
        async with asyncio.timeout(10):
            while topic not in self.heard:
                self._news.clear()
                await self._news.wait()

    def _hear(self, topic: str) -> None:
        self.heard.append(topic)
        self._news.set()


@asynccontextmanager
async def process(url: str) -> AsyncIterator[tuple[Database, Wakeups]]:
    database = await Database.open(url, durable=False)
    wakeups = wakeups_for(database)
    yield database, wakeups
    await wakeups.close()
    await database.close()


async def test_whoever_listens_in_this_process_hears_a_topic_once(url: str) -> None:
    async with process(url) as (_, wakeups):
        one, other = Ear(wakeups), Ear(wakeups)

        wakeups.notify("runs")
        await one.hears("runs")
        await other.hears("runs")
        wakeups.notify("end")
        await one.hears("end")

        assert [topic for topic in one.heard if topic] == ["runs", "end"]


async def test_whoever_stopped_listening_hears_nothing(url: str) -> None:
    async with process(url) as (_, wakeups):
        one, other = Ear(wakeups), Ear(wakeups)
        other.end()
        other.end()

        wakeups.notify("runs")
        await one.hears("runs")

        assert "runs" not in other.heard


async def test_a_listener_that_fails_does_not_keep_others_from_hearing(url: str) -> None:
    async with process(url) as (_, wakeups):

        def broken(_topic: str) -> None:
            raise ValueError("deaf")

        wakeups.listen(broken)
        ear = Ear(wakeups)

        wakeups.notify("runs")

        await ear.hears("runs")


async def test_other_processes_hear_what_is_said(postgresql: str) -> None:
    async with process(postgresql) as (_, here), process(postgresql) as (_, there):
        ear = Ear(there)
        await ear.hears(ANYTHING)  # it is connected

        for topic in ("runs", "lock/r1", "quote ' and -- more"):
            here.notify(topic)
            await ear.hears(topic)


async def test_who_says_it_inside_a_transaction_is_heard_after_the_commit(postgresql: str) -> None:
    async with process(postgresql) as (database, wakeups):
        ear = Ear(wakeups)
        await ear.hears(ANYTHING)

        async with database.engine.connect() as connection:
            await tell(connection, "taken back")
            await connection.rollback()
        await database.write(lambda connection: tell(connection, "kept"))
        await ear.hears("kept")

        assert "taken back" not in ear.heard


async def test_a_lost_connection_is_made_anew_and_everybody_looks_at_everything(own_cluster: Cluster) -> None:
    async with process(own_cluster.url) as (_, here), process(own_cluster.url) as (_, there):
        ear, own = Ear(there), Ear(here)
        here.notify("first")
        await own.hears("first")
        await ear.hears(ANYTHING)
        ear.heard.clear()
        own.heard.clear()

        own_cluster.kill()
        own_cluster.start()
        await ear.hears(ANYTHING)
        await own.hears(ANYTHING)
        here.notify("back")

        await ear.hears("back")


async def test_what_is_said_while_the_database_is_away_is_heard_here_at_once(own_cluster: Cluster) -> None:
    async with process(own_cluster.url) as (_, wakeups):
        ear = Ear(wakeups)
        await ear.hears(ANYTHING)

        own_cluster.stop()
        wakeups.notify("runs")
        await ear.hears("runs")
        own_cluster.start()


async def test_closing_while_the_database_is_away_does_not_hang(own_cluster: Cluster) -> None:
    async with process(own_cluster.url) as (_, wakeups):
        await Ear(wakeups).hears(ANYTHING)
        own_cluster.stop()

        async with asyncio.timeout(5):
            await wakeups.close()
