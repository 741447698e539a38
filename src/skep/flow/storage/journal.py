"""The one writer of the engine's tables.

Workers change rows in memory and name them here; everything named until the database's writer comes round is
one batch, each table one statement, all of it one commit.  What must not happen before the commit (running a
step, answering a caller) is handed over as a function.

Nothing that was named is lost while the database fails: it is written again until it is taken.  Only a run
whose rows the database will never take is left out, and its worker is told.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import structlog
from msgspec.structs import replace
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow.errors import CommitFailed, Fenced
from skep.flow.runs import RunRow, StepRow
from skep.flow.steps import RunId
from skep.flow.storage import statements, tables, values
from skep.flow.storage.batch import Batch
from skep.flow.storage.database import Database, Whole
from skep.flow.storage.leases import Lease
from skep.flow.storage.refusals import is_final, reason
from skep.flow.storage.salvage import write_healthy
from skep.flow.storage.statements import Rows, Statement, Values, writer_for

log = structlog.get_logger(__name__)

MOST_UNWRITTEN = 512
"""Steps whose rows wait for the writer: no others are called before these are written."""
FRESH = 0.5
"""Seconds after a commit in which it is taken for granted that others have not fenced this worker."""
_PAUSE_AFTER_FAILURE = 0.2
_LONGEST_PAUSE = 10.0

Check = Callable[[AsyncConnection], Awaitable[None]]


class Journal:
    """Batches changes of the engine's tables; see the module.

    `check` is run first in every transaction; if it raises Fenced, nothing is written any more and `refused`
    is called.  `poisoned` is called, before the actions of its batch, with a run that the database will never
    take and the reason; once for each run.  `lease`: what `check` looks at, so that a batch that has the
    transaction for itself looks at it in the same go.
    """

    def __init__(
        self,
        database: Database,
        check: Check | None = None,
        refused: Callable[[], None] | None = None,
        poisoned: Callable[[RunId, str], None] | None = None,
        lease: Lease | None = None,
    ) -> None:
        self._database = database
        self._writer = writer_for(database.engine.dialect.name)
        self._check = check
        self._refused = refused
        self._poisoned = poisoned
        self._lease = lease
        self._batch = Batch()
        self._in_flight: Batch | None = None
        self._taken = self._durable = 0
        """How many batches have been handed to the database, and how many of these are durable."""
        self._written = 0.0
        self._queued = False
        self._in_line = 0
        """How many flushes the database has been given and has not answered: two, where one is under way."""
        self._failures = 0
        self._careful = False
        """The database refused the batch for ever: its runs are tried apart."""
        self._refusals: dict[RunId, Exception] = {}
        self._lost: dict[RunId, str] = {}
        self._waiting: set[asyncio.Future[None]] = set()
        self._stopped = False

    # naming

    def create_run(self, run: RunRow) -> None:
        self._open().created.append(run)

    def save_run(self, run: RunRow) -> None:
        self._open().runs[run.id] = run

    def save_step(self, run: RunId, step: str, row: StepRow) -> None:
        self._open().steps[run, step] = row

    def add_event(self, run: RunId, sequence: int, step: str, kind: str, at: float, message: str) -> None:
        self._open().events.append((run, sequence, step, kind, at, values.text(message)))

    def answer(self, request: str, reply: bytes) -> None:
        """Answer what another process asked, in the commit of what was done about it."""
        self._open().replies.append((reply, request))

    def take_signal(self, run: RunId, signal: str, step: str) -> None:
        """The step has taken the signal: no other gets it."""
        self._open().taken.append((step, run, signal))

    def save_blob(self, hash: str, content: bytes) -> None:  # noqa: A002
        self._open().blobs[hash] = (hash, content, time.time())

    def keep(self, result: bytes) -> tuple[bytes | None, str | None]:
        """What stands in a step's row for this result: itself, or the hash of the blob it is saved as."""
        if len(result) <= values.LARGEST_RESULT:
            return result, None
        hash_ = values.hash_of(result)
        self.save_blob(hash_, result)
        return None, hash_

    def afterwards(self, action: Callable[[], None]) -> None:
        """Call it once everything named until now is durable, in the order of naming."""
        self._open().afterwards.append(action)

    @property
    def position(self) -> int:
        """Of what was named last, for `is_durable`."""
        return self._taken + 1 if self._queued else self._taken

    def is_durable(self, position: int) -> bool:
        """Everything up to there is, and what follows from it may be done without waiting for a commit: the
        last one was just now, so the lease holds, and not much waits for the next one."""
        fresh = time.monotonic() - self._written < FRESH
        return position <= self._durable and fresh and len(self._batch.steps) < MOST_UNWRITTEN

    async def flushed(self) -> None:
        """Return once everything named until now is durable.

        Raises:
            CommitFailed: the journal was stopped before.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._stopped:
            raise CommitFailed("the engine writes no more")
        self._waiting.add(done)
        done.add_done_callback(self._waiting.discard)
        self.afterwards(partial(_finish, done))
        await done

    def require_taken(self, run: RunId) -> None:
        """The run is one that the database takes.

        Raises:
            CommitFailed: it refused it for ever.
        """
        if run in self._lost:
            raise CommitFailed(f"the database does not take the run: {self._lost[run]}")

    def require_order(self) -> None:
        """What was named before a change must be written before it.

        Raises:
            CommitFailed: it is not, for the database refused it and it waits to be written again.
        """
        if self._failures or self._careful:
            raise CommitFailed("earlier changes are not written yet")

    @property
    def stopped(self) -> bool:
        return self._stopped

    def stop(self) -> None:
        """Ask for no further commit: the engine is gone."""
        self._stopped = True
        for waiting in list(self._waiting):
            if not waiting.done():
                waiting.set_exception(CommitFailed("the engine writes no more"))

    # in somebody's transaction

    async def write_run(self, connection: AsyncConnection, run: RunRow) -> None:
        """Record a new run inside somebody's transaction.

        Raises:
            Fenced: this worker is held for dead.
            IntegrityError: the tenant has a run of that key.
        """
        await self._require_membership(connection)
        row = dict(zip(statements.NEW_RUN.columns, values.new_run(run), strict=True))
        await connection.execute(insert(tables.runs).values(row))
        await self._writer.write(connection, {statements.LABEL: values.labels([run])})

    async def write_step(self, connection: AsyncConnection, run: RunId, step: str, row: StepRow) -> None:
        """The same for the result of a transactional step; a large one is saved as a blob."""
        rows: dict[Statement, list[Values]] = {}
        if row.result is not None and len(row.result) > values.LARGEST_RESULT:
            blob = values.hash_of(row.result)
            rows[statements.BLOB] = [(blob, row.result, time.time())]
            row = replace(row, blob=blob)
        rows[statements.STEP] = [values.step(run, step, row)]
        await self._write(connection, rows)

    async def write_definition(self, connection: AsyncConnection, definition: Values) -> None:
        """The same for a definition (hash, name, content, created); one that is there already is success."""
        await self._write(connection, {statements.DEFINITION: [definition]})

    async def _write(self, connection: AsyncConnection, rows: Rows) -> None:
        await self._require_membership(connection)
        await self._writer.write(connection, rows)

    async def _require_membership(self, connection: AsyncConnection) -> None:
        if self._check is None:
            return
        try:
            await self._check(connection)
        except Fenced:
            self._refuse()
            raise

    def _refuse(self) -> None:
        if not self._stopped:
            self.stop()
            if self._refused is not None:
                self._refused()

    # batches

    def _open(self) -> Batch:
        if not self._queued and not self._stopped:
            self._queued = True
            self._submit()
        return self._batch

    def _submit(self) -> None:
        if not self._stopped:
            self._in_line += 1
            self._database.submit(self._flush, isolated=False, whole=self._whole, answered=self._flushed)

    def _whole(self) -> Whole | None:
        """What makes the whole transaction in one go, if the writer can do that with this batch."""
        lease = self._lease
        if lease is None or self._careful or not (self._writer.any_size or self._batch.is_small):
            return None
        return partial(self._transact, self._take(), lease)

    async def _transact(self, rows: Rows, lease: Lease, driver: Any) -> None:
        if await self._writer.transact(driver, rows, lease) != "live":
            self._refuse()
            raise Fenced(f"worker {lease.worker} is held for dead: others have its runs")

    async def _flush(self, connection: AsyncConnection) -> None:
        if self._careful:
            batch = self._next()
            await self._require_membership(connection)
            self._refusals = await write_healthy(connection, self._writer, batch)
            return
        rows = self._take()
        await self._require_membership(connection)
        await self._writer.write(connection, rows, new=not self._failures)

    def _take(self) -> Rows:
        """Values are taken before the first await, so that the batch is one moment of the engine."""
        rows = self._next().rows()
        self._database.totals.rows += sum(map(len, rows.values()))
        return rows

    def _next(self) -> Batch:
        batch = self._in_flight = self._batch
        self._batch, self._queued = Batch(), False
        self._taken += 1
        return batch

    def _flushed(self, failure: Exception | None) -> None:
        self._in_line -= 1
        batch, self._in_flight = self._in_flight, None
        if failure is None:
            self._failures, self._careful = 0, False
            self._durable, self._written = self._taken, time.monotonic()
            self._tell_poisoned()
            _call_all(batch.afterwards if batch else [])
            return
        self._refusals = {}
        if batch is not None:
            self._batch = batch.before(self._batch)
        if self._stopped:
            return
        self._queued = True
        if is_final(failure.__cause__) and not self._careful:
            log.error("flow.journal_refused", error=str(failure))
            self._careful = True
            pause = 0.0
        else:
            self._failures += 1
            pause = min(_LONGEST_PAUSE, _PAUSE_AFTER_FAILURE * 2**self._failures)
            log.error("flow.journal_failed", error=str(failure), again_in=pause)
        if not self._in_line:  # else the next one takes all with it
            self._submit_after(pause)

    def _submit_after(self, pause: float) -> None:
        if pause:
            asyncio.get_running_loop().call_later(pause, self._submit)
        else:
            self._submit()

    def _tell_poisoned(self) -> None:
        refusals, self._refusals = self._refusals, {}
        for run, error in refusals.items():
            log.error("flow.run_refused", run=run, error=reason(error))
            if run not in self._lost and self._poisoned is not None:
                self._lost[run] = reason(error)
                _call_all([partial(self._poisoned, run, reason(error))])


def _finish(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


def _call_all(actions: Sequence[Callable[[], None]]) -> None:
    for action in actions:
        try:
            action()
        except Exception:
            log.exception("flow.defect")
