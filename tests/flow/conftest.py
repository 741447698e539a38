"""An engine on a real SQLite file, and a workshop of steps that keep book of what they did."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.flow import workshop
from tests.flow.workshop import Workshop

from skep.flow import Database, FlowEngine, Registry


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path}/flow.db"


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
