"""Tells other processes that there is something to look at.

A wake-up carries a topic and no truth: any of them may be lost, repeated or late.  Whoever waits for one also
looks at the tables by itself from time to time.  On PostgreSQL they are notifications (LISTEN, NOTIFY) on a
connection of their own; on SQLite they reach this process only.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import structlog
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow.storage.database import Database
from skep.flow.storage.drivers import detached

log = structlog.get_logger(__name__)

Callback = Callable[[str], None]
CHANNEL = "skep_flow"
ANYTHING = ""
"""The topic that says: some may have been lost, look at everything."""
RUNS = "runs"
"""There are runs that nobody has."""
PERMITS = "permits"
"""Permits were given back."""
_SEND = "SELECT pg_notify($1, topic) FROM unnest($2::text[]) AS topic"
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0


def worker_topic(worker: str) -> str:
    """There is a request or a signal for a run of this worker."""
    return f"worker/{worker}"


def lock_topic(run: str) -> str:
    """This run has its locks."""
    return f"lock/{run}"


def reply_topic(request: str) -> str:
    """This request is answered."""
    return f"reply/{request}"


class Wakeups(Protocol):
    """Wakes those who listen, in this process and where possible in others."""

    def notify(self, topic: str) -> None:
        """Call every listener, soon.  Say it after the commit of what there is to see."""

    def listen(self, callback: Callback) -> Callable[[], None]:
        """Have `callback(topic)` called, also with the topic `ANYTHING`; answers a function that ends it."""

    async def close(self) -> None: ...


class LocalWakeups:
    """Wakes those who listen in this process."""

    def __init__(self) -> None:
        self._callbacks: list[Callback] = []

    def notify(self, topic: str) -> None:
        asyncio.get_running_loop().call_soon(self._call, topic)

    def listen(self, callback: Callback) -> Callable[[], None]:
        self._callbacks.append(callback)

        def end() -> None:
            with suppress(ValueError):
                self._callbacks.remove(callback)

        return end

    async def close(self) -> None:
        self._callbacks.clear()

    def _call(self, topic: str) -> None:
        for callback in tuple(self._callbacks):
            try:
                callback(topic)
            except Exception:
                log.exception("flow.defect")


class NotifiedWakeups(LocalWakeups):
    """The same across the processes that share a PostgreSQL database; a lost connection is made anew."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._database = database
        self._topics: set[str] = set()
        self._something = asyncio.Event()
        self._listening = asyncio.create_task(self._listen_forever(), name="flow-wakeups")

    def notify(self, topic: str) -> None:
        super().notify(topic)
        self._topics.add(topic)
        self._something.set()

    async def close(self) -> None:
        await super().close()
        self._listening.cancel()
        await asyncio.wait([self._listening])

    async def _listen_forever(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                async with self._database.engine.connect() as connection:
                    driver = await detached(connection)
                    await driver.add_listener(CHANNEL, self._heard)
                    driver.add_termination_listener(self._lost)
                    pause = _FIRST_PAUSE
                    self._call(ANYTHING)
                    await self._send_forever(driver)
            except Exception as error:
                log.warning("flow.wakeups_lost", error=str(error), again_in=pause)
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE, pause * 2)

    async def _send_forever(self, driver: Any) -> None:
        """Topics that were named since the last time go together."""
        while not driver.is_closed():
            await self._something.wait()
            self._something.clear()
            topics, self._topics = self._topics, set()
            if topics:
                await driver.execute(_SEND, CHANNEL, list(topics))

    def _heard(self, driver: Any, process: int, _channel: str, topic: object) -> None:
        if process != driver.get_server_pid():  # our own listeners know already
            self._call(str(topic))

    def _lost(self, _driver: Any) -> None:
        self._something.set()


async def tell(connection: AsyncConnection, topic: str) -> None:
    """Wake those who listen once this transaction is committed.  On SQLite nobody hears it: they look."""
    if connection.dialect.name == "postgresql":
        await connection.execute(select(func.pg_notify(CHANNEL, topic)))


def wakeups_for(database: Database) -> Wakeups:
    """Open until `close`, which comes before the database's."""
    return NotifiedWakeups(database) if database.engine.dialect.name == "postgresql" else LocalWakeups()
