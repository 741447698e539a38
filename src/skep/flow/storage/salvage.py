"""Writes what can be written of a batch that the database refuses for ever.

One run whose rows cannot be stored must not keep the others from going on: it is found by halving, each half
in a savepoint of its own, and its rows are left out.
"""

from collections import defaultdict
from collections.abc import Iterable

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow.steps import RunId
from skep.flow.storage.batch import Batch
from skep.flow.storage.refusals import is_final, reason
from skep.flow.storage.statements import Rows, Statement, Values, Writer

log = structlog.get_logger(__name__)

Parts = dict[RunId, Rows]


async def write_healthy(connection: AsyncConnection, writer: Writer, batch: Batch) -> dict[RunId, Exception]:
    """Write all but the runs whose rows the database refuses; answers these, each with the reason.

    Raises whatever is not refused for ever: then nothing of this transaction counts.
    """
    parts, poisoned = _rows_of(batch)
    for rows in batch.shared():
        error = await _attempt(connection, writer, [rows])
        if error is not None:
            log.error("flow.row_refused", error=reason(error))
    untried = [list(parts)] if parts else []
    while untried:
        runs = untried.pop()
        error = await _attempt(connection, writer, [parts[run] for run in runs])
        if error is None:
            continue
        if len(runs) == 1:
            poisoned[runs[0]] = error
        else:
            untried += [runs[: len(runs) // 2], runs[len(runs) // 2 :]]
    return poisoned


def _rows_of(batch: Batch) -> tuple[Parts, dict[RunId, Exception]]:
    """All values of one moment, by run; and the runs of which some cannot even be put down."""
    parts: Parts = {}
    wrong: dict[RunId, Exception] = {}
    for run, part in batch.by_run().items():
        try:
            parts[run] = part.rows()
        except Exception as error:
            if not is_final(error):
                raise
            wrong[run] = error
    return parts, wrong


async def _attempt(connection: AsyncConnection, writer: Writer, parts: Iterable[Rows]) -> Exception | None:
    savepoint = await connection.begin_nested()
    try:
        await writer.write(connection, _together(parts))
        await savepoint.commit()
    except Exception as error:
        await savepoint.rollback()
        if not is_final(error):
            raise
        return error
    return None


def _together(parts: Iterable[Rows]) -> Rows:
    rows: dict[Statement, list[Values]] = defaultdict(list)
    for part in parts:
        for statement, values in part.items():
            rows[statement] += values
    return rows
