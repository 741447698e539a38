"""What a host was told to do and what came of it, in the agent's own SQLite file.

A receipt is durable before the bus hears of the command, an answer before its asker does; what waits at the
same time shares one transaction, one turn in the file's thread and one flush.  Satisfies `Receipts` of
`bus/server.py`.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import structlog

from skep.bus.calls import Answer, decode, encode
from skep.bus.server import Received
from skep.bus.stamps import Stamp
from skep.model.errors import Stale, Unavailable

log = structlog.get_logger(__name__)

KEPT = 86_400.0
"""Seconds for which an answer can be asked for again; askers repeat themselves within a minute."""
FENCES_KEPT = 30 * 86_400.0
"""Seconds after which no try of a step is still on its way."""
_PRUNED_EVERY = 3600.0

_TABLES = """
CREATE TABLE IF NOT EXISTS receipts (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, received BLOB, answer BLOB, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS receipts_at ON receipts (at);
CREATE INDEX IF NOT EXISTS receipts_unanswered ON receipts (number) WHERE answer IS NULL;
CREATE TABLE IF NOT EXISTS fences (
    run TEXT NOT NULL, step TEXT NOT NULL, epoch INTEGER NOT NULL, round INTEGER NOT NULL,
    undoing INTEGER NOT NULL, attempt INTEGER NOT NULL, at REAL NOT NULL, PRIMARY KEY (run, step));
CREATE INDEX IF NOT EXISTS fences_at ON fences (at);
"""

T = TypeVar("T")
Change = Callable[[sqlite3.Connection], Any]


class SqliteReceipts:
    """The file at `path`, made if need be; open while entered.

    `durable=False` leaves out the wait for the disk, for tests that do not cut the power.
    """

    def __init__(self, path: Path, *, now: Callable[[], float] = time.time, durable: bool = True) -> None:
        self._path = path
        self._now = now
        self._durable = durable
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="receipts")
        self._waiting: list[tuple[Change, asyncio.Future[Any]]] = []
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._connection = await self._in_thread(_open, self._path, self._durable)
        self._tasks = [
            asyncio.create_task(self._write_forever(), name="receipts"),
            asyncio.create_task(self._prune_forever(), name="receipts-pruning"),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.abandon()

    async def abandon(self) -> None:
        """Leave: what waits is not written, as when the process is killed."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        for _, done in self._waiting:
            done.cancel()
        await self._in_thread(self._connection.close)
        self._thread.shutdown()

    async def receive(self, received: Received) -> Answer | None:
        return await self._write(partial(_receive, received=received, now=self._now()))

    async def answered(self, answer: Answer) -> None:
        await self._write(partial(_answered, answer=answer, now=self._now()))

    async def unanswered(self) -> list[Received]:
        return await self._write(_unanswered)

    async def prune(self) -> None:
        """Forget answers nobody asks for any more and steps nobody tries any more."""
        await self._write(partial(_prune, now=self._now()))

    async def _write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((change, done))
        self._wake.set()
        return await done

    async def _write_forever(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch, self._waiting = self._waiting, []
            try:
                outcomes = await self._in_thread(_apply, self._connection, [change for change, _ in batch])
            except sqlite3.Error as error:
                log.warning("receipts.not-written", error=str(error))
                failure = Unavailable(f"The host's record of commands cannot be written: {error}")
                outcomes = [failure] * len(batch)
            for (_, done), outcome in zip(batch, outcomes, strict=True):
                _tell(done, outcome)

    async def _prune_forever(self) -> None:
        while True:
            with contextlib.suppress(Unavailable):  # it is in the log
                await self.prune()
            await asyncio.sleep(_PRUNED_EVERY)

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(work, *arguments))


def _open(path: Path, durable: bool) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'OFF'}")
    connection.executescript(_TABLES)
    return connection


def _apply(connection: sqlite3.Connection, changes: Sequence[Change]) -> list[Any]:
    """All in one transaction; one that is refused has changed nothing."""
    outcomes: list[Any] = []
    connection.execute("BEGIN IMMEDIATE")
    try:
        for change in changes:
            try:
                outcomes.append(change(connection))
            except Stale as error:
                outcomes.append(error)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return outcomes


def _tell(done: "asyncio.Future[Any]", outcome: object) -> None:
    if done.done():  # who asked gave up meanwhile
        return
    if isinstance(outcome, Exception):
        done.set_exception(outcome)
    else:
        done.set_result(outcome)


def _receive(connection: sqlite3.Connection, received: Received, now: float) -> Answer | None:
    call = received.call
    known = connection.execute("SELECT answer FROM receipts WHERE id = ?", (call.id,)).fetchone()
    if known is not None:
        return None if known[0] is None else decode(known[0], Answer)
    if call.stamp is not None:
        _pass_fence(connection, call.stamp, now)
    connection.execute(
        "INSERT INTO receipts (id, received, at) VALUES (?, ?, ?)", (call.id, encode(received), now)
    )
    return None


def _pass_fence(connection: sqlite3.Connection, stamp: Stamp, now: float) -> None:
    """Raises Stale: a higher one has passed."""
    highest = connection.execute(
        "SELECT epoch, round, undoing, attempt FROM fences WHERE run = ? AND step = ?", stamp.fence
    ).fetchone()
    if highest is not None and highest > stamp.rank:
        run, step = stamp.fence
        raise Stale(f"Step {step!r} of run {run} is in newer hands: this try of it was not carried out.")
    connection.execute(
        "INSERT OR REPLACE INTO fences VALUES (?, ?, ?, ?, ?, ?, ?)", (*stamp.fence, *stamp.rank, now)
    )


def _answered(connection: sqlite3.Connection, answer: Answer, now: float) -> None:
    """What was asked is of no use any more, and there may be a password in it."""
    connection.execute(
        "UPDATE receipts SET answer = ?, received = NULL, at = ? WHERE id = ?",
        (encode(answer), now, answer.id),
    )


def _unanswered(connection: sqlite3.Connection) -> list[Received]:
    query = "SELECT received FROM receipts WHERE answer IS NULL ORDER BY number"
    return [decode(row[0], Received) for row in connection.execute(query)]


def _prune(connection: sqlite3.Connection, now: float) -> None:
    connection.execute("DELETE FROM receipts WHERE answer IS NOT NULL AND at < ?", (now - KEPT,))
    connection.execute("DELETE FROM fences WHERE at < ?", (now - FENCES_KEPT,))
