"""Tests of several workers share one PostgreSQL database, emptied before each: to make one takes longest."""

from pathlib import Path

import pytest
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncConnection
from tests.flow.postgresql import Cluster, make_template

from skep.flow import Database, FlowEngine
from skep.flow.storage import tables

SHARED = "workers"
_SOURCES = (tables.runs, tables.definitions, tables.workers, tables.buckets, tables.blobs)


@pytest.fixture
async def postgresql(cluster: Cluster) -> str:
    return await _emptied(cluster)


@pytest.fixture
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return await _emptied(request.getfixturevalue("cluster"))
    url = f"sqlite+aiosqlite:///{tmp_path}/flow.db"
    await _create_tables(url)
    return url


async def _emptied(cluster: Cluster) -> str:
    """The URL of a database with the engine's tables, and nothing in them."""
    await make_template(cluster, SHARED, _create_tables)
    await cluster.terminate_others(SHARED)
    database = await Database.open(cluster.of(SHARED))
    await database.write(_empty)
    await database.close()
    return cluster.of(SHARED)


async def _create_tables(url: str) -> None:
    database = await Database.open(url, durable=False)
    await FlowEngine.create_tables_in(database)
    await database.close()


async def _empty(connection: AsyncConnection) -> None:
    """What refers to these goes with them."""
    for table in _SOURCES:
        await connection.execute(delete(table))
