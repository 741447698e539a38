"""Rows of runs and steps for tests of the storage."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow import Database
from skep.flow.runs import RunRow, StepRow, StepState
from skep.flow.steps import RunId
from skep.flow.storage import tables
from skep.flow.storage.journal import Journal

DEFINITION = ("d" * 64, "f", b'{"flow": "f", "input": {}, "steps": []}', 1.0)


def a_run(identifier: str, **values: Any) -> RunRow:
    usual: dict[str, Any] = {
        "flow": "f",
        "definition": DEFINITION[0],
        "title": "a run",
        "tenant": "",
        "labels": {},
        "key": None,
        "input": b"{}",
        "locks": (),
        "total": 1,
        "created": 1.0,
    }
    return RunRow(RunId(identifier), **usual | values)


def a_step(**values: Any) -> StepRow:
    usual: dict[str, Any] = {"state": StepState.SUCCEEDED, "attempts": 1, "result": b"1"}
    return StepRow(**usual | values)


async def prepare(database: Database) -> None:
    """Tables, and the definition that the runs refer to."""

    async def change(connection: AsyncConnection) -> None:
        await connection.run_sync(tables.metadata.create_all)
        await Journal(database).write_definition(connection, DEFINITION)

    await database.write(change)


async def stored(database: Database, table: str, *columns: str) -> Sequence[tuple[Any, ...]]:
    """These columns of all rows, in their order."""
    found = [tables.metadata.tables[f"flow_{table}"].c[name] for name in columns]
    async with database.read() as connection:
        return [tuple(row) for row in await connection.execute(select(*found).order_by(*found))]
