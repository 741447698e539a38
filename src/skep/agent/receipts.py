"""What a host was told to do and what came of it, in the agent's own SQLite file.

A receipt is durable before the bus hears of the command, an answer before its asker does; both share commits
with whatever else is waiting.  Satisfies `Receipts` of `bus/server.py`.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog
from sqlalchemy import Column, Float, Integer, LargeBinary, MetaData, String, Table, delete, select, update
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.bus.calls import Answer, decode, encode
from skep.bus.server import Received
from skep.bus.stamps import Stamp
from skep.flow import Database
from skep.model.errors import Stale

log = structlog.get_logger(__name__)

KEPT = 86_400.0
"""Seconds for which an answer can be asked for again; askers repeat themselves within a minute."""
FENCES_KEPT = 30 * 86_400.0
"""Seconds after which no try of a step is still on its way."""
_PRUNED_EVERY = 3600.0
_RANK = ("epoch", "round", "undoing", "attempt")

_metadata = MetaData()
_receipts = Table(
    "receipts",
    _metadata,
    Column("number", Integer, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("received", LargeBinary, nullable=False),
    Column("answer", LargeBinary),
    Column("at", Float, nullable=False, index=True),
)
_fences = Table(
    "fences",
    _metadata,
    Column("run", String, primary_key=True),
    Column("step", String, primary_key=True),
    *(Column(name, Integer, nullable=False) for name in _RANK),
    Column("at", Float, nullable=False, index=True),
)


class SqliteReceipts:
    """The file at `path`, made if need be; open while entered."""

    def __init__(self, path: Path, *, now: Callable[[], float] = time.time, durable: bool = True) -> None:
        self._path = path
        self._now = now
        self._durable = durable

    async def __aenter__(self) -> Self:
        self._database = await Database.open(f"sqlite+aiosqlite:///{self._path}", durable=self._durable)
        try:
            await self._database.write(lambda connection: connection.run_sync(_metadata.create_all))
        except BaseException:
            await self._database.close()
            raise
        self._pruning = asyncio.create_task(self._prune_forever(), name="receipts-pruning")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end_pruning()
        await self._database.close()

    async def abandon(self) -> None:
        """Leave without a word, as a killed process does; for tests of what comes after."""
        await self._end_pruning()
        await self._database.abandon()

    async def receive(self, received: Received) -> Answer | None:
        return await self._database.write(partial(_receive, received=received, now=self._now()))

    async def answered(self, answer: Answer) -> None:
        await self._database.write(partial(_answered, answer=answer, now=self._now()))

    async def unanswered(self) -> list[Received]:
        query = select(_receipts.c.received).where(_receipts.c.answer.is_(None)).order_by(_receipts.c.number)
        async with self._database.read() as connection:
            return [decode(row.received, Received) for row in await connection.execute(query)]

    async def prune(self) -> None:
        """Forget answers nobody asks for any more and steps nobody tries any more."""
        await self._database.write(partial(_prune, now=self._now()))

    async def _prune_forever(self) -> None:
        while True:
            try:
                await self.prune()
            except Exception as error:
                log.warning("receipts.not-pruned", error=str(error))
            await asyncio.sleep(_PRUNED_EVERY)

    async def _end_pruning(self) -> None:
        self._pruning.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._pruning


async def _receive(connection: AsyncConnection, received: Received, now: float) -> Answer | None:
    call = received.call
    query = select(_receipts.c.answer).where(_receipts.c.id == call.id)
    known = (await connection.execute(query)).first()
    if known is not None:
        return None if known.answer is None else decode(known.answer, Answer)
    if call.stamp is not None:
        await _pass_fence(connection, call.stamp, now)
    await connection.execute(insert(_receipts).values(id=call.id, received=encode(received), at=now))
    return None


async def _pass_fence(connection: AsyncConnection, stamp: Stamp, now: float) -> None:
    """Raises Stale: a higher one has passed."""
    run, step = stamp.fence
    query = select(*(_fences.c[name] for name in _RANK)).where(_fences.c.run == run, _fences.c.step == step)
    highest = (await connection.execute(query)).first()
    if highest is not None and tuple(highest) > stamp.rank:
        raise Stale(f"Step {step!r} of run {run} is in newer hands: this try of it was not carried out.")
    rank = dict(zip(_RANK, stamp.rank, strict=True)) | {"at": now}
    insertion = insert(_fences).values(run=run, step=step, **rank)
    await connection.execute(insertion.on_conflict_do_update(index_elements=["run", "step"], set_=rank))


async def _answered(connection: AsyncConnection, answer: Answer, now: float) -> None:
    """What was asked is of no use any more, and there may be a password in it."""
    change = update(_receipts).where(_receipts.c.id == answer.id)
    await connection.execute(change.values(answer=encode(answer), received=b"", at=now))


async def _prune(connection: AsyncConnection, now: float) -> None:
    old = _receipts.c.at < now - KEPT
    await connection.execute(delete(_receipts).where(old, _receipts.c.answer.is_not(None)))
    await connection.execute(delete(_fences).where(_fences.c.at < now - FENCES_KEPT))
