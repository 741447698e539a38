"""What other processes say to the worker that has a run: requests, which are answered, and signals.

Both are rows first and wake-ups second: they wait in the tables until a worker has the run and looks.
"""

import asyncio
import secrets
from contextlib import suppress
from dataclasses import asdict

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow.errors import UnknownRun
from skep.flow.runs import Request, Signal
from skep.flow.steps import RunId
from skep.flow.storage import tables
from skep.flow.storage.database import Database
from skep.flow.storage.shared import insert_new, now, transact
from skep.flow.storage.unfinished import signal_of
from skep.flow.storage.wakeups import ANYTHING, Wakeups, reply_topic, tell, worker_topic

_SOONEST_LOOK = 0.02
_LATEST_LOOK = 0.5
_inbox, _signals, _runs = tables.inbox.c, tables.signals.c, tables.runs.c


async def ask(database: Database, run: RunId, kind: str, body: bytes, by: str) -> str:
    """Ask something of the worker that has the run, or will have it; answers the request's id.

    Raises:
        UnknownRun: there is no such run.
    """
    request = secrets.token_hex(16)

    async def ask(connection: AsyncConnection) -> None:
        worker = await _worker_of(connection, run)
        row = {"id": request, "run": run, "kind": kind, "body": body, "by": by, "at": now(connection)}
        await connection.execute(insert(tables.inbox).values(row))
        await tell(connection, worker_topic(worker or ""))

    await transact(database, ask)
    return request


async def reply_of(
    database: Database, request: str, patience: float, wakeups: Wakeups | None = None
) -> bytes | None:
    """Wait for the reply and take it out of the inbox; None after `patience` seconds without one.

    A request that was not answered in time stays, and may still be carried out.
    """
    answered = asyncio.Event()
    topics = (reply_topic(request), ANYTHING)
    end = wakeups.listen(lambda topic: answered.set() if topic in topics else None) if wakeups else None
    try:
        return await _look_until_answered(database, request, patience, answered)
    finally:
        if end is not None:
            end()


async def requests_for(connection: AsyncConnection, worker: str) -> list[Request]:
    """Those of its runs that are not answered yet, oldest first."""
    query = (
        select(tables.inbox)
        .join(tables.runs, _runs.id == _inbox.run)
        .where(_inbox.reply.is_(None), _runs.worker == worker)
        .order_by(_inbox.at, _inbox.id)
    )
    return [
        Request(id=found.id, run=RunId(found.run), kind=found.kind, body=found.body, by=found.by)
        for found in await connection.execute(query)
    ]


async def add_signal(connection: AsyncConnection, run: RunId, signal: Signal) -> bool:
    """Leave a signal for the run; False: one of this id is there already, and this one is not kept.

    Raises:
        UnknownRun: there is no such run.
    """
    worker = await _worker_of(connection, run)
    row = {"run": run, **asdict(signal)}
    added = await connection.execute(
        insert_new(connection, tables.signals).values(row).returning(_signals.id)
    )
    if added.first() is None:
        return False
    await tell(connection, worker_topic(worker or ""))
    return True


async def has_signal(connection: AsyncConnection, run: RunId, identifier: str) -> bool:
    """Whether the run was told this before, taken or not."""
    query = select(_signals.id).where(_signals.run == run, _signals.id == identifier)
    return (await connection.execute(query)).first() is not None


async def signals_for(connection: AsyncConnection, worker: str) -> list[tuple[RunId, Signal]]:
    """Those of its unfinished runs that no step has taken, oldest first."""
    query = (
        select(tables.signals)
        .join(tables.runs, _runs.id == _signals.run)
        .where(_signals.step.is_(None), _runs.worker == worker, _runs.finished.is_(None))
        .order_by(_signals.at, _signals.id)
    )
    return [(RunId(found.run), signal_of(found)) for found in await connection.execute(query)]


async def _worker_of(connection: AsyncConnection, run: RunId) -> str | None:
    """The run's row cannot vanish before this transaction ends."""
    query = select(_runs.worker).where(_runs.id == run).with_for_update(read=True, key_share=True)
    found = (await connection.execute(query)).first()
    if found is None:
        raise UnknownRun(f"there is no run {run}")
    worker: str | None = found.worker
    return worker


async def _look_until_answered(
    database: Database, request: str, patience: float, answered: asyncio.Event
) -> bytes | None:
    clock = asyncio.get_running_loop().time
    deadline, pause = clock() + patience, _SOONEST_LOOK
    while True:
        answered.clear()
        reply = await _take_reply(database, request)
        left = deadline - clock()
        if reply is not None or left <= 0:
            return reply
        with suppress(TimeoutError):
            await asyncio.wait_for(answered.wait(), min(pause, left))
        pause = min(_LATEST_LOOK, pause * 2)


async def _take_reply(database: Database, request: str) -> bytes | None:
    query = select(_inbox.reply).where(_inbox.id == request)
    async with database.read() as connection:
        reply: bytes | None = (await connection.execute(query)).scalar()
    if reply is not None:
        await transact(database, lambda c: c.execute(delete(tables.inbox).where(_inbox.id == request)))
    return reply
