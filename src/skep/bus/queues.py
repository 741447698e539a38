"""What skep keeps at a RabbitMQ broker: its queues and exchanges, and how messages look there.

A key is the name of its queue.  Control reaches all of them by the default exchange, where RabbitMQ knows no
rights per queue; hosts send to `skep.calls`, to which every queue is bound by its key, and where an account
has rights per key.

A durable queue is a quorum queue: what is in it is on disk, on most brokers of a cluster, and the broker
counts the attempts.  Dead letters go through `skep.dead`, an exchange that looks at why a message died: one
that outlived its lifetime is wanted by nobody, and vanishes.
"""

import asyncio
from typing import Any
from uuid import uuid4

from aio_pika import DeliveryMode, ExchangeType
from aio_pika import Message as AmqpMessage
from aio_pika.abc import (
    AbstractChannel,
    AbstractConnection,
    AbstractExchange,
    AbstractIncomingMessage,
    AbstractQueue,
)
from aio_pika.exceptions import ChannelNotFoundEntity
from msgspec import Struct

from skep.bus.bus import DeadLetter, Depth, Message, Redelivery
from skep.bus.links import channel_of

CALLS = "skep.calls"
EVENTS = "skep.events"
DEAD = "skep.dead"

KEPT = 10_000
"""Dead letters; older ones are forgotten."""

_NEVER = 1_000_000_000
"""Who looks at a dead letter takes it and gives it back; RabbitMQ 4 allows that 20 times by default."""

GIVEN_UP = ("delivery_limit", "rejected")
"""Reasons for which a message is a dead letter; the broker knows `expired` and `maxlen`, too."""


class Exchanges(Struct, frozen=True, eq=False):
    """Where to send; who has none for events tells nobody of any."""

    commands: AbstractExchange
    events: AbstractExchange | None


class Layout(Struct, frozen=True):
    """How durable queues are made, and what a process of control makes beside them.

    One that exists is taken as it is: another version of skep may have made it with other limits.

    `settling`: seconds a new queue is left alone.  RabbitMQ 3.10 writes the name of its log to disk half a
    second after it confirms the queue; a broker that is killed before that never finds the log again.
    """

    redelivery: Redelivery
    settling: float = 1.0

    async def prepare(self, connection: AbstractConnection) -> None:
        """The exchanges, and the queue of the dead letters.

        `all-with-x` exists since RabbitMQ 3.10: headers that begin with x count.
        """
        await self._declare(
            connection, DEAD, {"x-delivery-limit": _NEVER, "x-max-length": KEPT, "x-overflow": "drop-head"}
        )
        async with channel_of(connection) as channel:
            await channel.declare_exchange(EVENTS, ExchangeType.TOPIC, durable=True)
            await channel.declare_exchange(CALLS, ExchangeType.TOPIC, durable=True)
            exchange = await channel.declare_exchange(DEAD, ExchangeType.HEADERS, durable=True)
            queue = await channel.get_queue(DEAD, ensure=False)
            for reason in GIVEN_UP:
                match: dict[str, Any] = {"x-match": "all-with-x", "x-first-death-reason": reason}
                await queue.bind(exchange, routing_key=reason, arguments=match)

    async def exchanges(self, commands: AbstractChannel, events: AbstractChannel) -> Exchanges:
        exchange = await events.declare_exchange(EVENTS, ExchangeType.TOPIC, durable=True)
        return Exchanges(commands.default_exchange, exchange)

    async def queue(
        self, connection: AbstractConnection, channel: AbstractChannel, key: str, *, durable: bool
    ) -> AbstractQueue:
        """The queue of the key, for who serves it.

        Raises ChannelLockedResource where it is not durable: another process has it, perhaps this one's
        former connection, which the broker has not yet missed.
        """
        if durable:
            await self.declare(connection, key)
            queue = await channel.get_queue(key, ensure=False)
        else:
            queue = await _passing(channel, key, {"x-dead-letter-exchange": DEAD})
        await queue.bind(CALLS, routing_key=key)
        return queue

    async def declare(self, connection: AbstractConnection, key: str) -> None:
        limits = {"x-delivery-limit": self.redelivery.attempts - 1, "x-dead-letter-exchange": DEAD}
        await self._declare(connection, key, limits)

    async def _declare(self, connection: AbstractConnection, name: str, limits: dict[str, Any]) -> None:
        if await depth_of(connection, name) is not None:
            return
        async with channel_of(connection) as channel:
            arguments = {"x-queue-type": "quorum", **limits}
            await channel.declare_queue(name, durable=True, arguments=arguments)
        await asyncio.sleep(self.settling)


class LayoutOfHost(Layout, frozen=True):
    """For the account of a host, which may make nothing but queues that go with it.

    Control has made the durable one (`control/hosts/own_bus_accounts.py`).
    """

    async def prepare(self, connection: AbstractConnection) -> None:
        """Nothing: it is there."""

    async def exchanges(self, commands: AbstractChannel, events: AbstractChannel) -> Exchanges:
        return Exchanges(await commands.get_exchange(CALLS, ensure=False), None)

    async def queue(
        self, connection: AbstractConnection, channel: AbstractChannel, key: str, *, durable: bool
    ) -> AbstractQueue:
        if durable:
            return await channel.get_queue(key, ensure=False)
        return await _passing(channel, key, {})


async def depth_of(connection: AbstractConnection, key: str) -> Depth | None:
    """None: there is no such queue."""
    async with channel_of(connection) as channel:
        try:
            queue = await channel.declare_queue(key, passive=True)
        except ChannelNotFoundEntity:
            return None
        found = queue.declaration_result
        return Depth(found.message_count or 0, found.consumer_count or 0)


async def _passing(channel: AbstractChannel, key: str, arguments: dict[str, Any]) -> AbstractQueue:
    """A queue that goes with its server."""
    return await channel.declare_queue(key, exclusive=True, auto_delete=True, arguments=arguments)


async def declare_ear(channel: AbstractChannel, prefix: str) -> AbstractQueue:
    """A nameless queue of the events whose key begins with the words of the prefix."""
    queue = await channel.declare_queue(exclusive=True, auto_delete=True)
    await queue.bind(EVENTS, routing_key=f"{prefix}.#")
    return queue


def encode(message: Message) -> AmqpMessage:
    """Our id is the correlation id: the library tells messages on their way apart by the message id, and one
    that is sent again may be on its way twice.
    """
    return AmqpMessage(
        message.body,
        message_id=uuid4().hex,
        correlation_id=message.id,
        reply_to=message.reply_to or None,
        delivery_mode=DeliveryMode.PERSISTENT if message.durable else DeliveryMode.NOT_PERSISTENT,
        expiration=message.lifetime,
        headers=_headers(message),
    )


def decode(found: AbstractIncomingMessage) -> Message:
    """A quorum queue counts the attempts before this one; of others only `redelivered` is known."""
    headers: dict[str, Any] = dict(found.headers)
    before = headers.get("x-delivery-count", int(bool(found.redelivered)))
    lifetime = headers.get("lifetime")
    return Message(
        id=found.correlation_id or "",
        body=found.body,
        reply_to=found.reply_to or "",
        durable=found.delivery_mode == DeliveryMode.PERSISTENT,
        lifetime=None if lifetime is None else float(lifetime),
        attempt=int(before) + 1,
        signature=bytes(headers.get("signature", b"")),
    )


def _headers(message: Message) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if message.lifetime is not None:
        headers["lifetime"] = str(message.lifetime)
    if message.signature:
        headers["signature"] = bytearray(message.signature)  # the library knows no bytes
    return headers


def decode_dead(found: AbstractIncomingMessage) -> DeadLetter:
    deaths: Any = found.headers.get("x-death") or [{}]
    died = deaths[0].get("time")
    return DeadLetter(
        key=str(found.headers.get("x-first-death-queue", "")),
        message=decode(found),
        at=died.timestamp() if died is not None else 0.0,
    )
