"""Bringing a database to the schema this version needs.

A migration whose module says `serves = "REVISION"` leaves everything in place that processes of that older
schema use: they go on, and may even be started anew, while skep is upgraded one process at a time
(docs/decisions/0013).

Alembic is loaded by whoever migrates: most processes find the schema as it is to be.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from skep.flow.storage import tables as flow_tables
from skep.model.errors import Conflict
from skep.store import tables

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"
_REVISIONS = sa.table("alembic_version", sa.column("version_num", sa.String))

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


@cache
def revisions() -> list[str]:
    """Of all migrations, which bear them in their names, up to the newest."""
    return sorted(path.name.partition("_")[0] for path in MIGRATIONS.glob("versions/[0-9]*_*.py"))


def _is_current(connection: sa.Connection) -> bool:
    current = _revision(connection)
    if current is None or current in revisions()[:-1]:
        return False
    if current != revisions()[-1]:
        _require_service(connection, current)
    return True


def _revision(connection: sa.Connection) -> str | None:
    """As Alembic keeps it; None: there is no schema."""
    if not sa.inspect(connection).has_table(_REVISIONS.name):
        return None
    return connection.execute(sa.select(_REVISIONS.c.version_num)).scalar_one_or_none()


def _upgrade(connection: sa.Connection) -> None:
    _take_turn(connection)
    if _is_current(connection):
        return
    from alembic import command

    command.upgrade(_config(connection), "head")
    _note_service(connection)
    _require_references(connection)


def _require_service(connection: sa.Connection, current: str) -> None:
    """Raises Conflict: the newer schema does not serve ours."""
    served = None
    if sa.inspect(connection).has_table(tables.schema_serves.name):
        served = connection.execute(sa.select(tables.schema_serves.c.revision)).scalar_one_or_none()
    if served not in revisions():
        raise Conflict(
            f"The database has schema {current}, which this version of skep does not know: a newer one "
            "wrote it. Start that version again, or restore a backup."
        )


def _note_service(connection: sa.Connection) -> None:
    """For older versions, which have not this file."""
    from alembic.script import ScriptDirectory

    head = ScriptDirectory(str(MIGRATIONS)).get_revision("head")
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
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    context = MigrationContext.configure(connection)
    found: list[object] = list(compare_metadata(context, [tables.metadata, flow_tables.metadata]))  # type: ignore[arg-type]
    return found


def _config(connection: sa.Connection) -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config
