"""Who takes messages from the broker: begins again by itself whenever its channel or connection is gone."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage

from skep.bus.backlog import Backlog
from skep.bus.bus import Event, Handler
from skep.bus.links import Away, Link, bounded, close
from skep.bus.queues import Layout, declare_ear, decode

log = structlog.get_logger()

PAUSE = 0.2
"""Seconds before a channel that ended is made anew."""

PATIENCE_OF_ANSWERS = 10.0
"""Seconds in which the broker must take an acknowledgement."""

Consume = Callable[[AbstractConnection, AbstractChannel], Awaitable[None]]


class Consumer:
    """`consume` makes the queue and begins; `began` is set each time it has."""

    def __init__(self, link: Link[AbstractConnection], name: str, patience: float, consume: Consume) -> None:
        self._link = link
        self._name = name
        self._patience = patience
        self._consume = consume
        self.began = asyncio.Event()

    async def run(self) -> None:
        trouble = False
        while True:
            connection = await self._link.session()
            try:
                await self._follow(connection)
                trouble = False
            except Away as error:
                if not trouble:
                    log.warning("bus.interrupted", key=self._name, error=str(error))
                trouble = True
            except Exception:
                log.exception("bus.defect", key=self._name)
            await asyncio.sleep(PAUSE)

    async def _follow(self, connection: AbstractConnection) -> None:
        """Until the channel ends, or the broker ends the consumer, as it does when its queue is dropped."""
        ended = asyncio.Event()
        async with bounded(self._patience):
            channel = connection.channel(publisher_confirms=False)
            await channel.initialize()
        try:
            async with bounded(self._patience):
                channel.close_callbacks.add(lambda *_: ended.set())
                underlying = await channel.get_underlay_channel()
                underlying.on_consumer_cancel_callbacks.add(lambda _: ended.set())
                await self._consume(connection, channel)
            self.began.set()
            await ended.wait()
        finally:
            await close(channel)


class Server:
    """Hands messages to the handler, each in a task of its own; the prefetch bounds how many."""

    def __init__(self, key: str, handler: Handler, layout: Layout, *, durable: bool, at_once: int) -> None:
        self._key = key
        self._handler = handler
        self._layout = layout
        self._durable = durable
        self._at_once = at_once
        self._tasks: set[asyncio.Task[None]] = set()

    async def consume(self, connection: AbstractConnection, channel: AbstractChannel) -> None:
        await channel.set_qos(prefetch_count=self._at_once)
        queue = await self._layout.queue(connection, channel, self._key, durable=self._durable)
        await queue.consume(self._take)

    async def end(self) -> None:
        """What is not done comes again: the channel ends with this."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take(self, found: AbstractIncomingMessage) -> None:
        """In a task that the library does not know: it would cancel the handler with the connection."""
        task = asyncio.create_task(self._deliver(found))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, found: AbstractIncomingMessage) -> None:
        message = decode(found)
        try:
            await self._handler(message)
        except Exception:
            log.exception("bus.refused", key=self._key, id=message.id, attempt=message.attempt)
            await asyncio.sleep(self._layout.redelivery.pause(message.attempt))
            again = self._durable or message.attempt == 1
            await _tell(partial(found.nack, requeue=again))
        else:
            await _tell(found.ack)


def listen(backlog: Backlog, prefix: str) -> Consume:
    """Nobody waits for what an event's receiver says."""

    async def take(found: AbstractIncomingMessage) -> None:
        backlog.put(Event(found.routing_key or "", found.body))

    async def consume(_connection: AbstractConnection, channel: AbstractChannel) -> None:
        queue = await declare_ear(channel, prefix)
        await queue.consume(take, no_ack=True)

    return consume


async def _tell(answer: Callable[[], Awaitable[None]]) -> None:
    """If the channel is gone the message comes again anyway."""
    with suppress(Away):
        async with bounded(PATIENCE_OF_ANSWERS):
            await answer()
