"""Ends the connections of processes that hang in the middle of a statement.

PostgreSQL ends a transaction that is idle for too long (`drivers.STALLED_MS`). While it waits for the rest
of a statement, or for somebody to read the rows, it calls the transaction active, and no limit of its own
counts. The driver sends a statement's values when the server has parsed it: a process that is stopped in
between keeps its locks for as long as the connection lives. So the processes of one database watch each
other's connections.
"""

import asyncio
import time
from collections.abc import Collection
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from skep.flow.storage.drivers import detached
from skep.flow.storage.refusals import is_away, reason

log = structlog.get_logger(__name__)

LOOKS = 6
"""In the time after which a connection counts as stalled."""
_FIND = """
SELECT pid, backend_start, state_change FROM pg_stat_activity
WHERE datname = current_database() AND application_name = current_setting('application_name')
  AND wait_event_type = 'Client' AND (state = 'active' OR wait_event = 'ClientWrite')
"""
_END = """
SELECT query, pg_terminate_backend(pid) FROM pg_stat_activity
WHERE pid = $1 AND backend_start = $2 AND state_change = $3
"""

Mark = tuple[Any, ...]
"""A connection in the middle of one statement: another one, or the next statement, is another mark."""


class Suspects:
    """Connections that were seen to wait for their client, since when."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._since: dict[Mark, float] = {}

    def judge(self, waiting: Collection[Mark], now: float) -> list[Mark]:
        """Those that waited at every look for so many seconds; who does not wait now begins anew."""
        self._since = {mark: self._since.get(mark, now) for mark in waiting}
        return [mark for mark, since in self._since.items() if now - since >= self._patience]


async def end_stalls(engine: AsyncEngine, patience: float) -> None:
    """For ever, on a connection beside the pool, all of which may wait for what a stalled one has locked."""
    suspects = Suspects(patience)
    while True:
        await asyncio.sleep(patience / LOOKS)
        try:
            await _look_on(engine, suspects, patience / LOOKS)
        except Exception as error:
            if not is_away(error):  # which others say
                log.warning("database.stalls_unseen", error=reason(error))


async def _look_on(engine: AsyncEngine, suspects: Suspects, pause: float) -> None:
    """Until the connection breaks."""
    async with engine.connect() as connection:
        driver = await detached(connection)
        while True:
            found = [tuple(row) for row in await driver.fetch(_FIND)]
            for mark in suspects.judge(found, time.monotonic()):
                if row := await driver.fetchrow(_END, *mark):
                    log.error("database.stall_ended", pid=mark[0], statement=row["query"][:200])
            await asyncio.sleep(pause)
