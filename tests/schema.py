"""Databases that have the schema already: to migrate one takes longer than most of the tests that need it.

What the migrations do is tried in tests/store.
"""

import tempfile
from pathlib import Path

from skep.flow import Database
from skep.store.schema import migrate

_made: list[bytes] = []
"""The file, once it was made."""


async def put_schema(file: Path) -> str:
    """Put a migrated database without rows there, unless there is one already; answers its URL."""
    if not file.exists():
        file.write_bytes(await _migrated())
    return f"sqlite+aiosqlite:///{file}"


async def prepare(url: str) -> None:
    """Migrate the database, so that it can be copied."""
    database = await Database.open(url, durable=False)
    try:
        await migrate(database.engine)
    finally:
        await database.close()


async def _migrated() -> bytes:
    if not _made:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "skep.db"
            await prepare(f"sqlite+aiosqlite:///{file}")
            _made.append(file.read_bytes())
    return _made[0]
