"""A migrated database of its own for every test, SQLite and PostgreSQL."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import make_url
from tests.flow.postgresql import cluster, fresh_database, make_template
from tests.schema import prepare, put_schema

from skep.flow import Database

__all__ = ["cluster"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What needs a database runs on both; what is marked `sqlite` is about the embedded one alone."""
    if "url" in metafunc.fixturenames:
        embedded = metafunc.definition.get_closest_marker("sqlite")
        metafunc.parametrize("url", ["sqlite"] if embedded else ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """Of an empty database, or of a migrated one on PostgreSQL if the test asks for `database`."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'skep.db'}"
        return
    cluster, template = request.getfixturevalue("cluster"), "template1"
    if "database" in request.fixturenames:
        template = "migrated"
        await make_template(cluster, template, prepare)
    async with fresh_database(cluster, template) as url:
        yield url


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    if url.startswith("sqlite"):
        await put_schema(Path(make_url(url).database or ""))
    opened = await Database.open(url, durable=False)
    yield opened
    await opened.close()
