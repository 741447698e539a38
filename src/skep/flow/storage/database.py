"""One SQL database with a single group-committing writer.

A durable commit costs milliseconds whatever it carries, so all changes that wait share one transaction.  Each
runs in a savepoint of its own: one that fails takes back its own writes only.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self, TypeVar, cast

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from skep.flow.errors import CommitFailed
from skep.flow.storage import drivers, effects
from skep.flow.storage.effects import Effects
from skep.flow.storage.refusals import TROUBLE, is_away, is_conflict, reason
from skep.flow.storage.stalls import end_stalls
from skep.flow.storage.totals import Totals

log = structlog.get_logger(__name__)

T = TypeVar("T")
Change = Callable[[AsyncConnection], Awaitable[T]]
Whole = Callable[[Any], Awaitable[None]]
"""A transaction from its begin to its commit, through the driver's connection."""

LARGEST_BATCH = 1000
_inside: ContextVar[object] = ContextVar("inside", default=None)
PATIENCE = 10.0
"""Seconds for which a server that is being restarted is waited for."""
_REST = 0.1
IDLE = 1.0
"""Seconds after which the writer asks its connection whether the server is still there."""


@dataclass(slots=True)
class _Waiting:
    change: Change[Any]
    done: asyncio.Future[Any]
    isolated: bool
    whole: Callable[[], Whole | None] | None = None
    answered: Callable[[Exception | None], None] | None = None
    effects: Effects = field(default_factory=effects.current)
    result: Any = None
    error: Exception | None = None


class Outage:
    """For how long the server does not answer, as those see it who ask.

    What nobody asked for a while in between are two outages.
    """

    def __init__(self) -> None:
        self._begun: float | None = None
        self._last = 0.0

    def lasts(self, now: float) -> bool:
        return self._begun is not None and now - self._last <= 3 * PATIENCE

    def seen(self, asked: float, now: float) -> float:
        """It did not answer until now who asked then; for how long it has not."""
        if self._begun is None or not self.lasts(now):
            self._begun = asked
        self._last = now
        return now - self._begun

    def ended(self) -> None:
        self._begun = None


class Database:
    """One SQL database (SQLite WAL synchronous=FULL, or PostgreSQL) with a single group-committing writer."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self._waiting: list[_Waiting] = []
        self._wake = asyncio.Event()
        self._closing = False
        self._writer: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._connection: AsyncConnection | None = None
        self._driver: Any = None
        self._used = 0.0
        self._outage = Outage()
        self._committing = False
        self._writing: object = None
        """Of the transaction whose changes are being made, also by tasks that they begin."""
        self.totals = Totals()

    @classmethod
    async def open(cls, url: str, *, durable: bool = True) -> Self:
        """Connect and start the writer.

        `durable=False` leaves out the wait for the disk (SQLite `synchronous=OFF`, PostgreSQL
        `synchronous_commit=off`): commits then survive the death of the process but not of the machine, which
        is what tests that simulate crashes want.
        """
        database = cls(drivers.open_engine(url, durable=durable))
        try:
            async with database.engine.connect():
                pass
        except BaseException:
            await database.engine.dispose()
            raise
        database._writer = asyncio.create_task(database._write_forever(), name="database-writer")
        if database.engine.dialect.name == "postgresql":
            stalls = end_stalls(database.engine, drivers.STALLED_MS / 1000)
            database._watch = asyncio.create_task(stalls, name="database-stalls")
        return database

    async def write(self, change: Change[T]) -> T:
        """Run the change in the writer's next transaction, in a savepoint of its own; return when durable.

        An exception rolls back this change only and is raised here.  All changes waiting at that time share
        one commit.  A caller that is cancelled before the change began takes it back; after that it happens.

        Raises:
            CommitFailed: the transaction as a whole failed, so this change did not happen either; or that is
                in doubt, for the connection broke at the very end.
        """
        if self._writing is not None and _inside.get() is self._writing:
            raise RuntimeError("a change must use the connection it was given, not write() again")
        return await self.submit(change)

    def submit(
        self,
        change: Change[T],
        *,
        isolated: bool = True,
        whole: Callable[[], Whole | None] | None = None,
        answered: Callable[[Exception | None], None] | None = None,
    ) -> asyncio.Future[T]:
        """Queue a change at once, behind those that wait already.

        One that is not `isolated` has no savepoint: if it fails, the whole transaction does.  If no other
        change shares its transaction, `whole` is asked to do it and all around it in one go, which saves
        round trips; None: not this time.  `answered` is called with the error or None before the next
        transaction begins, and the future then never fails.
        """
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        item = _Waiting(change, done, isolated, whole, answered)
        if self._closing:
            _answer([item], CommitFailed("the database is closed"))
            return done
        self._waiting.append(item)
        self._wake.set()
        return done

    def read(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A pooled connection that sees the last commit; whatever is written through it is rolled back.

        Raises:
            CommitFailed: the database does not answer, or no longer.
        """
        if self._closing:
            raise CommitFailed("the database is closed")
        return self._reader()

    async def close(self) -> None:
        """Commit what waits, then disconnect."""
        self._closing = True
        self._wake.set()
        if self._writer is not None:
            await asyncio.wait([self._writer])
        await self._look_away()
        await self.engine.dispose()

    async def abandon(self) -> None:
        """Disconnect without committing what waits, as a crash would."""
        self._closing = True
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait([self._writer])
        for item in self._waiting:
            item.done.cancel()
        await self._look_away()
        await self.engine.dispose()

    async def _look_away(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])

    @asynccontextmanager
    async def _reader(self) -> AsyncIterator[AsyncConnection]:
        connection = await _whole(self._connect())
        try:
            yield connection
        except (DBAPIError, ConnectionError) as error:
            if not is_away(error):
                raise
            raise CommitFailed(f"the database went away: {reason(error)}") from error
        finally:
            with suppress(DBAPIError, OSError):  # what was read is read, also if the server went away then
                await _whole(connection.close())

    async def _connect(self) -> AsyncConnection:
        """Once the server answers: to wait for one that is restarted is better than to fail.

        One that has been away for longer than a restart takes is asked once.

        Raises:
            CommitFailed: it does not answer for too long.
        """
        while True:
            asked = time.monotonic()
            try:
                connection = await self.engine.connect()
            except TROUBLE as error:
                if not is_away(error):
                    raise
                now = time.monotonic()
                if not self._outage.lasts(now):
                    server = self.engine.url.render_as_string(hide_password=True)
                    log.warning("database.away", database=server, error=reason(error))
                away = self._outage.seen(asked, now)
                if self._closing or away > PATIENCE:
                    message = f"the database does not answer: {reason(error)}"
                    raise CommitFailed.of(message, away_for=away) from error
            else:
                self._outage.ended()
                return connection
            await asyncio.sleep(_REST)

    async def _write_forever(self) -> None:
        try:
            while True:
                await self._wake.wait()
                await asyncio.sleep(0)  # tasks begun in this same moment get their changes into the batch
                while self._waiting:
                    self._wake.clear()  # now: what comes from here on is given its moment
                    batch, self._waiting = self._waiting[:LARGEST_BATCH], self._waiting[LARGEST_BATCH:]
                    await self._write_batch(batch)
                if self._closing:
                    return
        finally:
            if self._connection is not None:
                await _whole(self._connection.close())

    async def _write_batch(self, batch: list[_Waiting]) -> None:
        self._committing = False
        try:
            connection = await self._standing_connection()
            whole = batch[0].whole and batch[0].whole() if len(batch) == 1 else None
            if whole is not None:
                await self._commit_timed(partial(whole, self._driver), 1)
            else:
                async with connection.begin() as transaction:
                    await self._apply_all(connection, batch)
                    await self._commit_timed(transaction.commit, len(batch))
        except Exception as error:
            self.totals.failed += 1
            log.warning("database.commit_failed", error=reason(error), changes=len(batch))
            await self._disconnect()
            failure = CommitFailed.of(
                f"the database did not take the change: {reason(error)}",
                in_doubt=self._committing and is_away(error),
                away_for=error.away_for if isinstance(error, CommitFailed) else 0.0,
            )
            failure.__cause__ = error
            _answer(batch, failure)
        except BaseException:
            for item in batch:
                item.done.cancel()
            raise
        else:
            _answer(batch, None)

    async def _commit_timed(self, commit: Callable[[], Awaitable[None]], changes: int) -> None:
        begun = time.monotonic()
        self._committing = True
        await self._commit(commit)
        self.totals.committed(changes, time.monotonic() - begun)

    async def _apply_all(self, connection: AsyncConnection, batch: Sequence[_Waiting]) -> None:
        self._writing = object()
        token = _inside.set(self._writing)
        try:
            for item in batch:
                await _apply(connection, item)
        finally:
            _inside.reset(token)
            self._writing = None

    async def _standing_connection(self) -> AsyncConnection:
        """The writer's own.  A server that was restarted must not fail the first change after that."""
        idle, self._used = time.monotonic() - self._used, time.monotonic()
        if self._connection is not None and (
            _is_closed(self._driver) or (idle > IDLE and not await _answers(self._connection))
        ):
            await self._disconnect()
        if self._connection is None:
            self._connection = await _whole(self._connect())
            await self._connection.execution_options(skep_writer=True)
            self._driver = (await self._connection.get_raw_connection()).driver_connection
        return self._connection

    async def _disconnect(self) -> None:
        """After a failed transaction the connection is in an unknown state; the next batch gets another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                await connection.invalidate()
                await connection.close()

    async def _commit(self, commit: Callable[[], Awaitable[None]]) -> None:
        """The one place where anything becomes durable; tests put their crashes here."""
        await commit()


async def _apply(connection: AsyncConnection, item: _Waiting) -> None:
    if item.done.cancelled():
        return
    if not item.isolated:
        item.result = await item.change(connection)
        return
    savepoint = await connection.begin_nested()
    try:
        item.result = await item.change(connection)
        await savepoint.commit()
    except Exception as error:
        await savepoint.rollback()
        if connection.invalidated:
            raise
        item.error = _conflict(error) if is_conflict(error) else error


def _conflict(error: Exception) -> CommitFailed:
    failure = CommitFailed(f"another transaction was in the way: {reason(error)}")
    failure.__cause__ = error
    return failure


def _is_closed(driver: Any) -> bool:
    """By the server, as far as the driver of PostgreSQL has heard."""
    return bool(getattr(driver, "is_closed", bool)())


async def _answers(connection: AsyncConnection) -> bool:
    if connection.dialect.name == "sqlite":
        return True
    try:
        await connection.exec_driver_sql("SELECT 1")
        await connection.rollback()
    except Exception:
        return False
    return True


def _answer(batch: list[_Waiting], failure: CommitFailed | None) -> None:
    for item in batch:
        error = item.error or failure
        if error is None or (isinstance(error, CommitFailed) and error.in_doubt):
            item.effects.done = True
        if item.answered is not None:
            item.answered(error)
        if item.done.done():
            continue
        if error is None or item.answered is not None:
            item.done.set_result(item.result)
        else:
            item.done.set_exception(error)


async def _whole(work: Coroutine[Any, Any, T]) -> T:
    """Do it to its end, also when cancelled meanwhile: half-opened connections leak a thread each."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled() and task.exception() is None and isinstance(task.result(), AsyncConnection):
            await cast("AsyncConnection", task.result()).close()
        raise
