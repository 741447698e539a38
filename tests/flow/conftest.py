"""An engine on a real SQLite file or PostgreSQL, and a workshop of steps that keep book of what they did."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.flow import workshop
from tests.flow.postgresql import cluster, fresh_database, make_template, own_cluster, postgresql
from tests.flow.workshop import Workshop

from skep.flow import Database, FlowEngine, Registry

__all__ = ["cluster", "own_cluster", "postgresql"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What needs a database runs on both; what is marked `sqlite` is about the embedded one alone."""
    if "url" in metafunc.fixturenames:
        embedded = metafunc.definition.get_closest_marker("sqlite")
        metafunc.parametrize("url", ["sqlite"] if embedded else ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """Of a database without rows; on PostgreSQL, where tables take half a second, it has the engine's."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path}/flow.db"
        return
    cluster = request.getfixturevalue("cluster")
    await make_template(cluster, "flow", make_tables)
    async with fresh_database(cluster, "flow") as url:
        yield url


async def make_tables(url: str) -> None:
    database = await Database.open(url)
    await FlowEngine.create_tables_in(database)
    await database.close()


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    database = await Database.open(url, durable=False)
    yield database
    await database.close()


@pytest.fixture
def shop() -> Workshop:
    return Workshop()


@pytest.fixture
def registry() -> Registry:
    return workshop.registry()


@pytest.fixture
async def engine(database: Database, registry: Registry, shop: Workshop) -> AsyncIterator[FlowEngine]:
    await shop.attach(database)
    async with FlowEngine(
        database, registry, shop.environment, retry_delay=lambda _tries: 0.001, grace=0.1
    ) as engine:
        yield engine
