"""Bundles on a real database, with real processes."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from skep.flow import Database, FlowEngine, Registry
from skep.flow.bundles.bundles import Bundles
from skep.flow.bundles.loading import VersionLoader
from skep.flow.bundles.nursery import Nursery


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """One for all tests: it takes a second to start."""
    nursery = Nursery()
    yield nursery
    asyncio.run(nursery.close())


@pytest.fixture
def loader(registry: Registry, nursery: Nursery, tmp_path: Path) -> VersionLoader:
    return VersionLoader(registry, tmp_path / "cache", offline=True, patience=5.0, nursery=nursery)


@pytest.fixture
async def bundles(database: Database, registry: Registry, loader: VersionLoader) -> AsyncIterator[Bundles]:
    await FlowEngine.create_tables_in(database)
    async with Bundles(database, registry, loader, idle=0.0) as bundles:
        yield bundles


@pytest.fixture
async def flows(database: Database, bundles: Bundles) -> AsyncIterator[FlowEngine]:
    """An engine that runs what the bundles bring."""
    engine = FlowEngine(
        database,
        bundles.registry,
        lambda _route: None,
        retry_delay=lambda _tries: 0.01,
        grace=0.1,
        prepare=bundles.prepare,
    )
    bundles.on_unload(engine.forget_code)
    async with engine:
        yield engine
