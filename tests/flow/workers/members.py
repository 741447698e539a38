"""Several workers on one database, each with connections of its own, as in processes apart."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow import Database
from skep.flow.runs import RunState
from skep.flow.steps import RunId
from skep.flow.storage import tables
from skep.flow.storage.membership import Membership


class Member:
    def __init__(self, database: Database, membership: Membership) -> None:
        self.database = database
        self.membership = membership

    @property
    def id(self) -> str:
        return self.membership.id

    async def commit(self, run: RunId, message: str) -> None:
        """Note something of the run, as a journal does."""

        async def change(connection: AsyncConnection) -> None:
            await self.membership.check(connection)
            step = {"run": run, "step": message, "state": "succeeded", "attempts": 1, "undo_attempts": 0}
            await connection.execute(insert(tables.steps).values(step | {"error": "", "message": message}))

        await self.database.write(change)

    async def finish(self, run: RunId) -> None:
        async def change(connection: AsyncConnection) -> None:
            await self.membership.check(connection)
            done = {"state": RunState.SUCCEEDED.value, "finished": time.time()}
            await connection.execute(update(tables.runs).where(tables.runs.c.id == run).values(done))

        await self.database.write(change)

    async def adopt(self, room: int = 1000) -> list[RunId]:
        return [stored.row.id for stored in await self.membership.adopt(room)]


@asynccontextmanager
async def members(
    url: str, count: int, *, shared: bool = True, lease: float = 60.0
) -> AsyncIterator[list[Member]]:
    """So many that have joined."""
    async with AsyncExitStack() as stack:
        databases = [await Database.open(url, durable=False) for _ in range(count)]
        for database in databases:
            stack.push_async_callback(database.close)
        joined = [
            Member(database, Membership(database, shared=shared, name=f"w{number}", lease=lease))
            for number, database in enumerate(databases)
        ]
        for member in joined:
            await member.membership.join()
        yield joined


async def put_runs(database: Database, runs: Sequence[str], **values: Any) -> list[RunId]:
    """Runs that are under way, as the tables have them; `values` are columns."""

    async def put(connection: AsyncConnection) -> None:
        known = select(tables.definitions.c.hash).where(tables.definitions.c.hash == "h")
        if (await connection.execute(known)).first() is None:
            definition: dict[str, Any] = {"hash": "h", "name": "f", "content": b"{}", "created": 0.0}
            await connection.execute(insert(tables.definitions).values(definition))
        row: dict[str, Any] = {
            "flow": "f",
            "definition": "h",
            "title": "",
            "tenant": "",
            "labels": "{}",
            "input": b"{}",
        }
        row |= {"locks": "[]", "total": 1, "created": 0.0, "state": "running", "cause": "", "error": ""}
        row |= {"output": b"{}", "epoch": 1, "priority": 2, "worker": None} | values
        await connection.execute(insert(tables.runs), [row | {"id": run} for run in runs])

    await database.write(put)
    return [RunId(run) for run in runs]


async def put_run(database: Database, run: str, **values: Any) -> RunId:
    return (await put_runs(database, [run], **values))[0]


async def lapse(database: Database, worker: str) -> None:
    """The worker has not renewed its lease for a long time."""
    change = update(tables.workers).where(tables.workers.c.id == worker).values(expires=1.0)
    await database.write(lambda connection: connection.execute(change))


async def owners(database: Database) -> dict[str, str | None]:
    async with database.read() as connection:
        query = select(tables.runs.c.id, tables.runs.c.worker)
        return {found.id: found.worker for found in await connection.execute(query)}
