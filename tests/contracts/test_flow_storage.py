"""What the flow engine may expect of its database when that fails: SQLite and PostgreSQL."""

import asyncio
import subprocess
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncConnection
from tests.flow.postgresql import Cluster, cluster, fresh_database, own_cluster, postgresql
from tests.flow.rows import a_run, a_step, prepare, stored

from skep.flow import CommitFailed, Database
from skep.flow.steps import RunId
from skep.flow.storage import tables
from skep.flow.storage.journal import Journal

__all__ = ["cluster", "own_cluster", "postgresql"]

A = RunId("a")
PATIENCE = 30


class FlowStorageContract(ABC):
    """A database that fails is used again as soon as it works again; nothing is written by halves."""

    @abstractmethod
    async def fail(self) -> None:
        """From now on nothing can be committed."""

    @abstractmethod
    async def mend(self) -> None:
        """The database works again."""

    @pytest.fixture
    async def database(self, url: str) -> AsyncIterator[Database]:
        database = await Database.open(url)
        await prepare(database)
        yield database
        await database.close()

    async def test_changes_fail_while_it_is_down_and_the_first_one_after_it_is_back_works(
        self, database: Database
    ) -> None:
        await self.fail()
        with pytest.raises(CommitFailed):
            await database.write(insert_run)

        await self.mend()
        await database.write(insert_run)

        assert await stored(database, "runs", "id") == [("a",)]

    async def test_what_was_named_meanwhile_is_written_when_it_is_back(self, database: Database) -> None:
        journal, done = Journal(database), list[int]()
        await database.write(insert_run)

        await self.fail()
        for number in range(1, 4):
            journal.save_step(A, f"s{number}", a_step(result=b"1" * 50_000))
            journal.add_event(A, number, f"s{number}", "succeeded", 1.0, "")
            journal.afterwards(lambda number=number: done.append(number))  # type: ignore[misc]
            with pytest.raises(CommitFailed):
                await refused(journal)
        assert done == []
        await self.mend()
        async with asyncio.timeout(PATIENCE):
            await journal.flushed()

        assert done == [1, 2, 3]
        assert await stored(database, "steps", "step") == [("s1",), ("s2",), ("s3",)]
        assert await stored(database, "events", "sequence") == [(1,), (2,), (3,)]

    async def test_readers_see_the_last_commit_again(self, database: Database) -> None:
        await database.write(insert_run)
        assert await stored(database, "runs", "id") == [("a",)]

        await self.fail()
        with suppress(OSError, CommitFailed):
            await stored(database, "runs", "id")
        await self.mend()

        assert await stored(database, "runs", "id") == [("a",)]

    async def test_a_database_that_is_down_can_be_closed(self, url: str) -> None:
        database = await Database.open(url)
        await prepare(database)
        journal = Journal(database)

        await self.fail()
        journal.create_run(a_run("b", input=b"1" * 50_000))
        journal.stop()
        await database.close()
        await self.mend()

        database = await Database.open(url)
        assert await stored(database, "runs", "id") == []
        await database.close()


async def insert_run(connection: AsyncConnection) -> None:
    run = a_run("a")
    values = {name: getattr(run, name) for name in ("id", "flow", "definition", "title", "tenant")}
    rest = {"labels": "{}", "input": b"1" * 50_000, "locks": "[]", "total": 1, "created": 1.0}
    progress = {"state": "running", "cause": "", "error": "", "output": b"{}", "epoch": 1}
    await connection.execute(insert(tables.runs).values(values | rest | progress))


async def refused(journal: Journal) -> None:
    """Raises CommitFailed as soon as the database has refused the batch."""
    async with asyncio.timeout(PATIENCE):
        while True:
            journal.require_order()
            await asyncio.sleep(0.01)


@pytest.mark.root
class TestSqliteOnAFullDisk(FlowStorageContract):
    """A file system of two megabytes, filled to its last byte."""

    @pytest.fixture
    def url(self, tmp_path: Path) -> Iterator[str]:
        mount = tmp_path / "small"
        mount.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "skep-test", mount], check=True)
        self.ballast = mount / "ballast"
        yield f"sqlite+aiosqlite:///{mount}/flow.db"
        subprocess.run(["umount", mount], check=True)

    async def fail(self) -> None:
        with self.ballast.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass

    async def mend(self) -> None:
        self.ballast.unlink()


class TestPostgresqlThatIsStopped(FlowStorageContract):
    @pytest.fixture
    async def url(self, own_cluster: Cluster) -> AsyncIterator[str]:
        self.cluster = own_cluster
        async with fresh_database(own_cluster) as url:
            yield url

    async def fail(self) -> None:
        await asyncio.to_thread(self.cluster.stop)

    async def mend(self) -> None:
        await asyncio.to_thread(self.cluster.start)


class TestPostgresqlThatIsKilled(TestPostgresqlThatIsStopped):
    async def fail(self) -> None:
        await asyncio.to_thread(self.cluster.kill)


async def test_a_connection_that_is_ended_in_a_transaction_fails_it_as_a_whole(postgresql: str) -> None:
    database = await Database.open(postgresql)
    await prepare(database)

    async def die(connection: AsyncConnection) -> None:
        await connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    results = await asyncio.gather(
        database.write(insert_run),
        database.write(die),
        database.write(insert_run),
        return_exceptions=True,
    )

    assert [type(result) for result in results] == [CommitFailed] * 3
    await database.write(insert_run)
    assert await stored(database, "runs", "id") == [("a",)]
    await database.close()
