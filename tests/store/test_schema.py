"""Migrations, and what every table must have."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine

from skep.flow import Database
from skep.flow.storage import tables as flow_tables
from skep.model.errors import Conflict
from skep.store import tables
from skep.store.schema import differences, migrate

NOBODYS = {"regions", "zones", "hosts", "tenants"}
"""They belong to the installation."""
SHARED = {"images"}
"""Rows of tenant "" belong to everybody, so their tenant is no foreign key."""


async def test_migrations_make_exactly_the_tables(database: Database) -> None:
    assert await differences(database.engine) == []


async def test_migrating_again_changes_nothing(database: Database) -> None:
    await migrate(database.engine)

    assert await differences(database.engine) == []


async def test_a_difference_would_be_found(database: Database) -> None:
    await database.write(lambda tx: tx.exec_driver_sql("ALTER TABLE apps ADD COLUMN more TEXT"))

    assert len(await differences(database.engine)) == 1


async def test_a_database_of_a_newer_version_is_refused(database: Database) -> None:
    await database.write(lambda tx: tx.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(Conflict, match="schema 9999"):
        await migrate(database.engine)


async def test_a_migration_happens_whole_or_not_at_all(tmp_path: Path) -> None:
    """A table that stands in the way of a later one must not leave the earlier ones behind."""
    database = await Database.open(f"sqlite+aiosqlite:///{tmp_path / 'skep.db'}", durable=False)
    await database.write(lambda tx: tx.exec_driver_sql("CREATE TABLE published_ports (id INTEGER)"))

    with pytest.raises(sa.exc.OperationalError, match="already exists"):
        await migrate(database.engine)

    async with database.read() as connection:
        names = await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names())
    await database.close()
    assert names == ["published_ports"]


@pytest.mark.parametrize("name", sorted(set(tables.metadata.tables) - NOBODYS))
def test_every_owned_row_carries_its_tenant(name: str) -> None:
    column = tables.metadata.tables[name].c.get("tenant_id")

    assert column is not None
    assert not column.nullable
    targets = {key.target_fullname for key in column.foreign_keys}
    assert targets == (set() if name in SHARED else {"tenants.id"})


def test_names_are_unique_within_their_tenant() -> None:
    for name in ("apps", "networks", "disks", "images"):
        table = tables.metadata.tables[name]
        unique = [
            {column.name for column in constraint.columns}
            for constraint in table.constraints
            if isinstance(constraint, sa.UniqueConstraint)
        ]
        assert any("tenant_id" in columns and len(columns) == 2 for columns in unique), name


def test_the_flow_engine_and_the_cloud_share_no_table() -> None:
    assert not set(tables.metadata.tables) & set(flow_tables.metadata.tables)


async def test_foreign_keys_are_enforced(database: Database) -> None:
    row = {"name": "z", "region": "nowhere"}

    with pytest.raises(IntegrityError, match="FOREIGN KEY"):
        await database.write(lambda tx: tx.execute(sa.insert(tables.zones).values(row)))


async def test_without_the_pragma_they_would_not_be(tmp_path: Path) -> None:
    """Why `Database` sets it: SQLite's own default is off."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'plain.db'}")
    async with engine.connect() as connection:
        answer = (await connection.exec_driver_sql("PRAGMA foreign_keys")).scalar()
    await engine.dispose()

    assert answer == 0
