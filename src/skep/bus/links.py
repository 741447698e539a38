"""One connection to the broker, which comes back by itself.

aio-pika has a connection that does, too; but there a publish waits without bound while the broker is away,
and what it restores afterwards depends on when it was lost.  Here whoever needs the connection asks for it
each time, and makes what it wants of it anew.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from ssl import SSLContext
from typing import Generic, TypeVar

import structlog
from aio_pika import Connection
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import AMQPError
from yarl import URL

log = structlog.get_logger()

S = TypeVar("S")

_TROUBLE = (AMQPError, RuntimeError, OSError, TimeoutError, asyncio.InvalidStateError)
"""What a connection that goes away raises, at whatever point it does; the last one where nobody waits any
more for what aiormq has an answer to."""

CLOSING = 2.0
"""Seconds for a goodbye: a broker that has an alarm does not read it."""

_ADVICE = (
    "look whether RabbitMQ runs there and is reached from here, or see 'bus'; it is tried again and again"
)

SHORTEST, LONGEST = 0.1, 1.0
"""Seconds between two tries to connect."""

Lost = Callable[[], None]
"""Called when the connection, or a channel that it cannot do without, is gone."""


class Away(Exception):
    """The broker does not answer, or ended what it was asked on; `__cause__` is what the library raised."""


@asynccontextmanager
async def bounded(seconds: float) -> AsyncIterator[None]:
    """Whatever goes wrong with the broker inside is Away, and after so many seconds it is given up.

    The library cancels who waits on a connection that it closes: nobody else wants such a task to end.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise Away(f"no answer within {seconds:g} s") from error
    except _TROUBLE as error:
        raise Away(str(error) or type(error).__name__) from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise Away("the connection was closed") from error


class Link(Generic[S]):
    """`prepare` makes of a connection what is wanted of it, and may tell later that it is lost."""

    def __init__(
        self,
        name: str,
        dial: Callable[[], Awaitable[AbstractConnection]],
        prepare: Callable[[AbstractConnection, Lost], Awaitable[S]],
        patience: float,
        broker: str = "",
    ) -> None:
        """`broker`: what the log calls it."""
        self._name = name
        self._broker = broker
        self._dial = dial
        self._prepare = prepare
        self._patience = patience
        self._session: S | None = None
        self._up = asyncio.Event()
        self._lost = asyncio.Event()
        self.tried = asyncio.Event()
        """Set after the first try."""
        self.trouble: Away | None = None
        """Of the last try; None while connected."""

    async def session(self) -> S:
        """What there is now, once there is one."""
        while self._session is None:
            await self._up.wait()
        return self._session

    def lose(self, session: S) -> None:
        """Who uses it saw that it is gone.  At once, so that who tries again waits for the next one."""
        if session is self._session:
            self._session = None
            self._up.clear()
            self._lost.set()

    async def run(self) -> None:
        """Connect, wait until it is lost, connect again: for ever."""
        pause = SHORTEST
        while True:
            try:
                async with self._connected() as lost:
                    pause = SHORTEST
                    await lost.wait()
                log.warning("bus.lost", link=self._name, broker=self._broker)
            except Away as error:
                if self.trouble is None:
                    log.warning(
                        "bus.away", link=self._name, broker=self._broker, error=str(error), advice=_ADVICE
                    )
                self.trouble = error
            except Exception:
                log.exception("bus.defect", link=self._name)
            self.tried.set()
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            pause = min(LONGEST, pause * 2)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[asyncio.Event]:
        lost = self._lost = asyncio.Event()
        async with bounded(self._patience):
            connection = await self._dial()
        try:
            connection.close_callbacks.add(lambda *_: lost.set())
            async with bounded(self._patience):
                self._session = await self._prepare(connection, lost.set)
            self.trouble = None
            self._up.set()
            self.tried.set()
            log.info("bus.connected", link=self._name)
            yield lost
        finally:
            self._session = None
            self._up.clear()
            await hang_up(connection)


async def dial(url: URL, ssl_context: SSLContext | None) -> AbstractConnection:
    connection = Connection(url, ssl_context=ssl_context)
    try:
        await connection.connect()
    except BaseException:
        await hang_up(connection)
        raise
    return connection


async def hang_up(connection: AbstractConnection) -> None:
    """The second time nothing is left to wait for; without it the library would try when nobody runs it."""
    await close(connection)
    await close(connection)


@asynccontextmanager
async def channel_of(connection: AbstractConnection) -> AsyncIterator[AbstractChannel]:
    """A channel of its own: the broker ends a channel at the first thing it does not like."""
    channel = connection.channel(publisher_confirms=False)
    await channel.initialize()
    try:
        yield channel
    finally:
        await close(channel)


async def close(what: AbstractConnection | AbstractChannel) -> None:
    """Say goodbye; what does not answer is left."""
    with suppress(Away):
        async with bounded(CLOSING):
            await what.close()


@asynccontextmanager
async def background(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """The work goes on while entered, and then ends."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
