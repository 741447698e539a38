"""The one writer of the engine's tables.

Workers change rows in memory and name them here; everything named until the database's writer comes round is
one batch, each table one `executemany`, all of it one commit.  What must not happen before the commit
(running a step, answering a caller) is handed over as a function.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog
from sqlalchemy import Dialect, Table, bindparam, insert, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import Insert, UpdateBase

from skep.flow.errors import CommitFailed
from skep.flow.runs import RunRow, StepRow
from skep.flow.steps import RunId
from skep.flow.storage import tables
from skep.flow.storage.database import Database

log = structlog.get_logger(__name__)

LONGEST_MESSAGE = 4000
_PAUSE_AFTER_FAILURE = 0.2
_LONGEST_PAUSE = 10.0

_RUN_COLUMNS = (
    "state",
    "cause",
    "error",
    "output",
    "epoch",
    "round",
    "crashes",
    "paused",
    "worker",
    "started",
    "finished",
)
_STEP_COLUMNS = (
    "state",
    "attempts",
    "undo_attempts",
    "result",
    "blob",
    "error",
    "message",
    "started",
    "finished",
)
Values = tuple[Any, ...]


@dataclass(slots=True)
class _Batch:
    created: list[RunRow] = field(default_factory=list)
    runs: dict[RunId, RunRow] = field(default_factory=dict)
    steps: dict[tuple[RunId, str], StepRow] = field(default_factory=dict)
    events: list[Values] = field(default_factory=list)
    afterwards: list[Callable[[], None]] = field(default_factory=list)

    def before(self, other: "_Batch") -> "_Batch":
        """Both in one, this one first."""
        return _Batch(
            self.created + other.created,
            self.runs | other.runs,
            self.steps | other.steps,
            self.events + other.events,
            self.afterwards + other.afterwards,
        )


class Journal:
    """Batches changes of the engine's tables; see the module."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = Statements(database.engine.dialect)
        self._batch = _Batch()
        self._in_flight: _Batch | None = None
        self._queued = False
        self._failures = 0
        self._stopped = False

    def create_run(self, run: RunRow) -> None:
        self._open().created.append(run)

    def save_run(self, run: RunRow) -> None:
        self._open().runs[run.id] = run

    def save_step(self, run: RunId, step: str, row: StepRow) -> None:
        self._open().steps[run, step] = row

    def add_event(self, run: RunId, sequence: int, step: str, kind: str, at: float, message: str) -> None:
        self._open().events.append((run, sequence, step, kind, at, message))

    def afterwards(self, action: Callable[[], None]) -> None:
        """Call it once everything named until now is durable, in the order of naming."""
        self._open().afterwards.append(action)

    async def flushed(self) -> None:
        """Return once everything named until now is durable."""
        done = asyncio.Event()
        self.afterwards(done.set)
        await done.wait()

    def require_order(self) -> None:
        """What was named before a change must be written before it.

        Raises:
            CommitFailed: it is not, for the database refused it and it waits to be written again.
        """
        if self._failures:
            raise CommitFailed("earlier changes are not written yet")

    def stop(self) -> None:
        """Ask for no further commit: the engine is gone."""
        self._stopped = True

    async def write_run(self, connection: AsyncConnection, run: RunRow) -> None:
        """Record a new run inside somebody's transaction."""
        await _many(connection, self._sql.insert_run, [_new_run_values(run)])
        await _many(connection, self._sql.insert_label, _label_values([run]))

    async def write_step(self, connection: AsyncConnection, run: RunId, step: str, row: StepRow) -> None:
        """The same for the result of a transactional step."""
        await _many(connection, self._sql.upsert_step, [_step_values(run, step, row)])

    async def write_definition(self, connection: AsyncConnection, values: Values) -> None:
        """The same for a definition (hash, name, content, created); one that is there already is success."""
        await _many(connection, self._sql.insert_definition, [values])

    def _open(self) -> _Batch:
        if not self._queued and not self._stopped:
            self._queued = True
            self._submit()
        return self._batch

    def _submit(self) -> None:
        if not self._stopped:
            self._database.submit(self._flush, isolated=False, answered=self._flushed)

    async def _flush(self, connection: AsyncConnection) -> None:
        """Values are taken before the first await, so that the batch is one moment of the engine."""
        batch, self._batch, self._queued = self._batch, _Batch(), False
        self._in_flight = batch
        created, labels = [_new_run_values(run) for run in batch.created], _label_values(batch.created)
        runs = [_run_values(run) for run in batch.runs.values()]
        steps = [_step_values(run, step, row) for (run, step), row in batch.steps.items()]
        await _many(connection, self._sql.insert_run, created)
        await _many(connection, self._sql.insert_label, labels)
        await _many(connection, self._sql.update_run, runs)
        await _many(connection, self._sql.upsert_step, steps)
        await _many(connection, self._sql.insert_event, batch.events)

    def _flushed(self, failure: Exception | None) -> None:
        batch, self._in_flight = self._in_flight, None
        if failure is None:
            self._failures = 0
            _call_all(batch.afterwards if batch else [])
            return
        if batch is not None:
            self._batch = batch.before(self._batch)
        self._queued = True
        self._failures += 1
        pause = min(_LONGEST_PAUSE, _PAUSE_AFTER_FAILURE * 2**self._failures)
        log.error("flow.journal_failed", error=str(failure), again_in=pause)
        asyncio.get_running_loop().call_later(pause, self._submit)


def _call_all(actions: Sequence[Callable[[], None]]) -> None:
    for action in actions:
        try:
            action()
        except Exception:
            log.exception("flow.defect")


class Statements:
    """SQL text for the driver, compiled once: values are given by position, in the order of the columns."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        insert_or = postgresql.insert if dialect.name == "postgresql" else sqlite.insert
        steps = insert_or(tables.steps)
        changed = {name: steps.excluded[name] for name in _STEP_COLUMNS}
        one_run = tables.runs.c.id == bindparam("run")
        self.insert_definition = self._insert(
            insert_or(tables.definitions).on_conflict_do_nothing(), tables.definitions
        )
        self.insert_run = self._insert(insert(tables.runs), tables.runs)
        self.insert_label = self._insert(insert(tables.labels), tables.labels)
        self.insert_event = self._insert(insert(tables.events), tables.events)
        self.upsert_step = self._insert(
            steps.on_conflict_do_update(index_elements=["run", "step"], set_=changed), tables.steps
        )
        self.update_run = self._text(update(tables.runs).where(one_run), _RUN_COLUMNS, (*_RUN_COLUMNS, "run"))

    def _insert(self, statement: Insert, table: Table) -> str:
        columns = tuple(column.name for column in table.columns)
        return self._text(statement, columns, columns)

    def _text(self, statement: UpdateBase, columns: tuple[str, ...], order: tuple[str, ...]) -> str:
        compiled = statement.compile(dialect=self._dialect, column_keys=list(columns))
        if tuple(getattr(compiled, "positiontup", ())) != order:
            raise RuntimeError(f"the dialect {self._dialect.name} orders values otherwise: {compiled}")
        return str(compiled)


async def _many(connection: AsyncConnection, statement: str, rows: Sequence[Values]) -> None:
    if rows:
        await connection.exec_driver_sql(statement, list(rows))


def _new_run_values(run: RunRow) -> Values:
    return (
        run.id,
        run.flow,
        run.definition,
        run.title,
        run.tenant,
        msgspec.json.encode(run.labels).decode(),
        run.key,
        run.input,
        msgspec.json.encode(run.locks).decode(),
        run.total,
        run.created,
        run.parent,
        run.priority,
        run.deadline,
        *_run_values(run)[:-1],
    )


def _run_values(run: RunRow) -> Values:
    return (
        run.state.value,
        run.cause,
        run.error[:LONGEST_MESSAGE],
        run.output,
        run.epoch,
        run.round,
        run.crashes,
        run.paused,
        run.worker,
        run.started,
        run.finished,
        run.id,
    )


def _label_values(runs: Sequence[RunRow]) -> list[Values]:
    return [(run.id, key, value) for run in runs for key, value in run.labels.items()]


def _step_values(run: RunId, step: str, row: StepRow) -> Values:
    return (
        run,
        step,
        row.state.value,
        row.attempts,
        row.undo_attempts,
        row.result,
        row.blob,
        row.error[:LONGEST_MESSAGE],
        row.message[:LONGEST_MESSAGE],
        row.started,
        row.finished,
    )
