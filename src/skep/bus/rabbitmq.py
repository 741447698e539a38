"""The bus over a RabbitMQ broker (3.10 or newer), by aio-pika.

Two connections: a broker that is short of memory or disk stops reading from those who publish, and what they
acknowledge would wait there, too.  Everything that is asked of the broker has an end in time.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from ssl import SSLContext
from types import TracebackType
from typing import Self

from aio_pika import Message as AmqpMessage
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange
from aio_pika.exceptions import (
    AuthenticationError,
    InvalidFrameError,
    ProbableAuthenticationError,
    PublishError,
)
from msgspec import Struct
from yarl import URL

from skep.bus.backlog import Backlog
from skep.bus.bus import DeadLetter, Depth, Event, Handler, Message, Redelivery
from skep.bus.consumers import Consume, Consumer, Server, listen
from skep.bus.links import Away, Link, Lost, background, bounded, channel_of, dial
from skep.bus.queues import DEAD, Layout, LayoutOfHost, decode_dead, depth_of, encode
from skep.model.errors import NotFound, Unavailable

HEARTBEAT = 3
"""Seconds: a connection that falls silent is given up after about four of them, by the broker after two."""

# What it says when a connection goes is said by us, once and with less alarm.
logging.getLogger("aiormq").setLevel(logging.CRITICAL)


class _Outlet(Struct, frozen=True, eq=False):
    channels: tuple[AbstractChannel, AbstractChannel]
    commands: AbstractExchange
    events: AbstractExchange | None

    @property
    def is_closed(self) -> bool:
        return any(channel.is_closed for channel in self.channels)


class RabbitMqBus:
    """Satisfies `bus.Bus` while entered.

    `patience`: seconds after which a broker that does not answer counts as away.
    `settling`: see `queues.Layout`.  `of_host`: the account is a host's own, with few rights.
    """

    def __init__(
        self,
        url: str,
        *,
        ssl_context: SSLContext | None = None,
        redelivery: Redelivery = Redelivery(),  # noqa: B008 - frozen
        patience: float = 5.0,
        settling: float = 1.0,
        of_host: bool = False,
    ) -> None:
        self._url = URL(url)
        self._patience = patience
        self._layout = (LayoutOfHost if of_host else Layout)(redelivery, settling)
        self._events = Backlog()
        out, into = (
            partial(self._dial, "publisher", ssl_context),
            partial(self._dial, "consumer", ssl_context),
        )
        self._out = Link("out", out, self._make_outlet, patience, str(self))
        self._in = Link("in", into, self._make_inlet, patience, str(self))
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Raises Unavailable: the broker refuses us.  One that is away is waited for in the background."""
        async with AsyncExitStack() as stack:
            for work in (self._in.run(), self._out.run(), self._tell()):
                await stack.enter_async_context(background(work))
            for link in (self._in, self._out):
                await link.tried.wait()
                if refusal := _refusal(link.trouble):
                    raise Unavailable(f"The broker {self} refuses: {refusal}. See the setting 'bus'.")
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def __str__(self) -> str:
        """Without the password."""
        url = self._url
        user = f"{url.user}@" if url.user else ""
        return f"{url.scheme}://{user}{url.host}:{url.port}{url.path}"

    async def send(self, key: str, message: Message) -> None:
        try:
            async with bounded(self._patience), self._outlet() as outlet:
                await outlet.commands.publish(encode(message), key, mandatory=True)
        except Away as away:
            if isinstance(away.__cause__, PublishError):
                raise NotFound(f"Nobody has ever served {key!r}.") from away
            raise self._unavailable(away) from away

    @asynccontextmanager
    async def serve(
        self, key: str, handler: Handler, *, durable: bool = True, at_once: int = 64
    ) -> AsyncIterator[None]:
        server = Server(key, handler, self._layout, durable=durable, at_once=at_once)
        try:
            async with self._consuming(key, server.consume):
                yield
        finally:
            await server.end()

    async def declare(self, key: str) -> None:
        async with self._asking() as connection:
            await self._layout.declare(connection, key)

    async def drop(self, key: str) -> None:
        async with self._asking() as connection, channel_of(connection) as channel:
            await channel.queue_delete(key)

    def publish(self, key: str, body: bytes) -> None:
        self._events.put(Event(key, body))

    @asynccontextmanager
    async def subscribe(self, prefix: str) -> AsyncIterator[AsyncIterator[Event]]:
        backlog = Backlog()
        async with self._consuming(prefix, listen(backlog, prefix)):
            yield backlog.drain()

    async def depths(self, keys: Iterable[str]) -> dict[str, Depth]:
        found = {}
        async with self._asking() as connection:
            for key in keys:
                depth = await depth_of(connection, key)
                if depth is not None:
                    found[key] = depth
        return found

    async def dead(self, limit: int = 100) -> list[DeadLetter]:
        """They are taken and never acknowledged: with the channel they go back."""
        letters: list[DeadLetter] = []
        async with self._asking() as connection, channel_of(connection) as channel:
            queue = await channel.get_queue(DEAD, ensure=False)
            while len(letters) < limit and (found := await queue.get(fail=False)) is not None:
                letters.append(decode_dead(found))
        return letters

    @asynccontextmanager
    async def _consuming(self, name: str, consume: Consume) -> AsyncIterator[None]:
        consumer = Consumer(self._in, name, self._patience, consume)
        async with background(consumer.run()):
            with suppress(TimeoutError):
                await asyncio.wait_for(consumer.began.wait(), self._patience)
            yield

    @asynccontextmanager
    async def _outlet(self) -> AsyncIterator[_Outlet]:
        outlet = await self._out.session()
        try:
            yield outlet
        finally:
            if outlet.is_closed:
                self._out.lose(outlet)

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[AbstractConnection]:
        """Raises Unavailable for whatever goes wrong inside."""
        try:
            async with bounded(self._patience):
                yield await self._in.session()
        except Away as away:
            raise self._unavailable(away) from away

    async def _tell(self) -> None:
        """Publishes events, one after the other; what cannot go now is lost."""
        while True:
            event = await self._events.take()
            with suppress(Away):
                async with bounded(self._patience), self._outlet() as outlet:
                    if outlet.events is not None:
                        await outlet.events.publish(AmqpMessage(event.body), event.key, mandatory=False)

    def _unavailable(self, away: Away) -> Unavailable:
        trouble = self._in.trouble or self._out.trouble or away
        return Unavailable(f"The broker {self} does not answer: {trouble}")

    async def _make_inlet(self, connection: AbstractConnection, _lost: Lost) -> AbstractConnection:
        await self._layout.prepare(connection)
        return connection

    async def _make_outlet(self, connection: AbstractConnection, lost: Lost) -> _Outlet:
        """Commands with confirms, events without; a channel that ends takes its connection with it."""
        commands = connection.channel(publisher_confirms=True, on_return_raises=True)
        events = connection.channel(publisher_confirms=False)
        for channel in (commands, events):
            await channel.initialize()
            channel.close_callbacks.add(lambda *_: lost())
        to = await self._layout.exchanges(commands, events)
        return _Outlet((commands, events), to.commands, to.events)

    async def _dial(self, name: str, ssl_context: SSLContext | None) -> AbstractConnection:
        settings = {"heartbeat": str(HEARTBEAT), "name": f"skep {name}"} | dict(self._url.query)
        return await dial(self._url.with_query(settings), ssl_context)


def _refusal(trouble: Away | None) -> str:
    """Why the broker, which answers, will not have us: another try would end the same.  Empty: it is away.

    To the opening of a virtual host it says no with a close, which the library finds out of place.
    """
    error = trouble.__cause__ if trouble is not None else None
    if isinstance(error, AuthenticationError | ProbableAuthenticationError):
        return str(trouble)
    if isinstance(error, InvalidFrameError) and "Connection.OpenOk" in str(error):
        return "there is no such virtual host, or the user has no right to it"
    return ""
