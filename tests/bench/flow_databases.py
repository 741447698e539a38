"""Fresh databases for the measures of the flow engine: SQLite files, and databases of a PostgreSQL server."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from tests.flow.postgresql import Cluster


class Databases(Protocol):
    """Where databases come from; each is empty, and every commit to it waits for the disk."""

    name: str

    def new(self, name: str) -> str:
        """Make one; answers its URL."""


class SqliteFiles:
    name = "SQLite, WAL, synchronous=FULL"

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def new(self, name: str) -> str:
        return f"sqlite+aiosqlite:///{self._directory / name}.db"


class PostgresqlServer:
    name = "PostgreSQL, fsync on"

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def new(self, name: str) -> str:
        asyncio.run(self._create(name))
        return self._cluster.of(name)

    async def _create(self, name: str) -> None:
        connection = await self._cluster.connect()
        try:
            await connection.execute(f'CREATE DATABASE "{name}"')
        finally:
            await connection.close()


@contextmanager
def postgresql(directory: Path) -> Iterator[PostgresqlServer]:
    """A server with its own data, as `scripts/postgresql` makes it; it is gone afterwards."""
    cluster = Cluster(directory)
    cluster.start()
    try:
        server = PostgresqlServer(cluster)
        server.name = f"PostgreSQL {asyncio.run(_version(cluster))}, fsync on"
        yield server
    finally:
        cluster.stop()


async def _version(cluster: Cluster) -> str:
    connection = await cluster.connect()
    try:
        version = await connection.fetchval("SHOW server_version")
        return str(version).split()[0]
    finally:
        await connection.close()
