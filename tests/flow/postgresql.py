"""A PostgreSQL server for the tests of a session, started when the first of them wants it."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.engine import make_url
from tests import servers
from tests.servers import SCRIPTS, Server


class Cluster(Server):
    """`url` is that of its superuser and first database."""

    name = "PostgreSQL"
    script = SCRIPTS / "postgresql"

    def __init__(self, directory: Path, *words: str) -> None:
        super().__init__(directory, *words)
        self.templates: set[str] = set()

    def of(self, database: str) -> str:
        return make_url(self.url).set(database=database).render_as_string(hide_password=False)

    async def connect(self, database: str = "postgres") -> asyncpg.Connection:
        url = make_url(self.url)
        return await asyncpg.connect(
            host=url.host, port=url.port, user=url.username, password=url.password, database=database
        )

    async def terminate_others(self, database: str) -> None:
        """End every connection to the database, as a failing network or an operator does."""
        connection = await self.connect()
        try:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", database
            )
        finally:
            await connection.close()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One server for the whole session; it is gone when the session ends, however it ends.

    It does not wait for the disk: nobody needs it after a crash, and a database per test is costly else.
    """
    with serve() as cluster:
        cluster.stop()
        with (cluster.directory / "data" / "postgresql.conf").open("a") as configuration:
            configuration.write("fsync = off\n")
        cluster.start()
        yield cluster


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[Cluster]:
    """A server for the tests of one file alone, which may stop it if they start it again."""
    with serve() as cluster:
        yield cluster


def serve() -> AbstractContextManager[Cluster]:
    """A server for as long as the context, or this process, lives."""
    return servers.serve(Cluster)


@asynccontextmanager
async def fresh_database(cluster: Cluster, template: str = "template1") -> AsyncIterator[str]:
    """A database that nobody else has, for as long as the context lasts; answers its URL."""
    name = f"test_{secrets.token_hex(6)}"
    await _command(cluster, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    try:
        yield cluster.of(name)
    finally:
        await _command(cluster, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


async def make_template(cluster: Cluster, name: str, prepare: Callable[[str], Awaitable[None]]) -> None:
    """Once per server: a database, prepared by its URL, that `fresh_database` makes copies of."""
    if name not in cluster.templates:
        await _command(cluster, f'CREATE DATABASE "{name}"')
        await prepare(cluster.of(name))
        cluster.templates.add(name)


@pytest.fixture
async def postgresql(cluster: Cluster) -> AsyncIterator[str]:
    """The URL of an empty database of the test's own."""
    async with fresh_database(cluster) as url:
        yield url


async def _command(cluster: Cluster, command: str) -> None:
    connection = await cluster.connect()
    try:
        await connection.execute(command)
    finally:
        await connection.close()
