"""Bringing a database to the schema this version needs.

A migration whose module says `serves = "REVISION"` leaves everything in place that processes of that older
schema use: they go on, and may even be started anew, while skep is upgraded one process at a time
(docs/decisions/0013).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from skep.flow.storage import tables as flow_tables
from skep.model.errors import Conflict
from skep.store import tables

MIGRATIONS = Path(__file__).parent / "migrations"


_LOCK = (0x736B6570, 100)
"""The advisory lock of who migrates or sets up; the flow engine uses the first numbers of this family."""


async def migrate(engine: AsyncEngine) -> None:
    """Apply every migration that is missing, in one transaction; nothing, if a newer version was here already
    and left in place what this one uses.

    Raises:
        Conflict: the database was written by a newer version, which this one cannot work beside.
    """
    async with engine.connect() as connection, _rows_kept(connection), connection.begin():
        await connection.run_sync(_upgrade)


async def is_current(engine: AsyncEngine) -> bool:
    """Whether nothing needs to be applied for this version to work.

    Raises:
        Conflict: the database was written by a newer version, which this one cannot work beside.
    """
    async with engine.connect() as connection:
        return await connection.run_sync(_is_current)


async def take_turn(connection: AsyncConnection) -> None:
    """Until the transaction ends no other process migrates or sets up; SQLite has one process."""
    await connection.run_sync(_take_turn)


async def differences(engine: AsyncEngine) -> list[object]:
    """What the migrations do not say and the tables do: must be nothing (a test holds it)."""
    async with engine.connect() as connection:
        return await connection.run_sync(_compare)


@asynccontextmanager
async def _rows_kept(connection: AsyncConnection) -> AsyncIterator[None]:
    """SQLite changes a table by making it anew; dropping the old one must not delete what refers to it.

    https://www.sqlite.org/lang_altertable.html#otheralter: foreign keys are off meanwhile and checked at the
    end.  The switch works outside of transactions only, hence past SQLAlchemy, which would begin one.
    """
    if connection.dialect.name != "sqlite":
        yield
        return
    driver: Any = (await connection.get_raw_connection()).driver_connection
    await driver.execute("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        await driver.execute("PRAGMA foreign_keys=ON")


def _take_turn(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(*_LOCK)))


def _is_current(connection: sa.Connection) -> bool:
    current = MigrationContext.configure(connection).get_current_revision()
    script = _script()
    if current == script.get_current_head():
        return True
    if current is not None and current not in {revision.revision for revision in script.walk_revisions()}:
        _require_service(connection, script, current)
        return True
    return False


def _upgrade(connection: sa.Connection) -> None:
    _take_turn(connection)
    if _is_current(connection):
        return
    script = _script()
    command.upgrade(_config(connection), "head")
    _note_service(connection, script)
    _require_references(connection)


def _require_service(connection: sa.Connection, script: ScriptDirectory, current: str) -> None:
    """Raises Conflict: the newer schema does not serve ours."""
    served = None
    if sa.inspect(connection).has_table(tables.schema_serves.name):
        served = connection.execute(sa.select(tables.schema_serves.c.revision)).scalar_one_or_none()
    ours = [revision.revision for revision in script.walk_revisions()]
    if served not in ours:
        raise Conflict(
            f"The database has schema {current}, which this version of skep does not know: a newer one "
            "wrote it. Start that version again, or restore a backup."
        )


def _note_service(connection: sa.Connection, script: ScriptDirectory) -> None:
    """For older versions, which have not this file."""
    head = script.get_revision("head")
    serves = getattr(head.module, "serves", head.revision)
    connection.execute(sa.delete(tables.schema_serves))
    connection.execute(sa.insert(tables.schema_serves).values(revision=serves))


def _require_references(connection: sa.Connection) -> None:
    """Nothing refers to a row that is gone; if it does, the migration is taken back."""
    if connection.dialect.name == "sqlite":
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        if broken:
            raise RuntimeError(
                f"the migration broke {len(broken)} references, the first in table {broken[0][0]}"
            )


def _compare(connection: sa.Connection) -> list[object]:
    context = MigrationContext.configure(connection)
    found: list[object] = list(compare_metadata(context, [tables.metadata, flow_tables.metadata]))  # type: ignore[arg-type]
    return found


@cache
def _script() -> ScriptDirectory:
    return ScriptDirectory(str(MIGRATIONS))


def _config(connection: sa.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config
