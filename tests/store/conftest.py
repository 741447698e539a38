"""A migrated database of its own for every test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from skep.flow import Database
from skep.store.schema import migrate


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await Database.open(f"sqlite+aiosqlite:///{tmp_path / 'skep.db'}", durable=False)
    await migrate(opened.engine)
    yield opened
    await opened.close()
