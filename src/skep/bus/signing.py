"""A bus whose messages are signed: who takes one knows which process sent it, to whom, and when.

For buses that cross a wire, where whoever has an account may put a message on a queue.  Within one process
there is nobody else, and nothing is signed.  What is not in order is refused: it changes nothing, nobody is
answered (who forges a question must not choose what is said), and the log has it once.

The signature travels beside the message, so a release that does not know it reads the same body.

What is for one process is proved by a key that both share, once it was heard of: what a process of control
asks a host, and all answers.  Any worker of a zone may take what hosts tell it, and the next agent a durable
command: these are signed.  So is what is asked again, since the host may be another process by then.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from contextvars import ContextVar
from typing import Protocol, TypeVar

import msgspec
import structlog

from skep.bus.bus import Bus, DeadLetter, Depth, Event, Handler, Message, Sender
from skep.bus.replays import Replays
from skep.model.errors import Forbidden, Unauthenticated

log = structlog.get_logger(__name__)

SKEW = 300.0
"""Seconds that the clocks of two machines may differ (docs/decisions/0011)."""
LONGEST = 3600.0
"""Seconds for which a host believes a command: longer than anybody waits for one, and shorter than receipts
remember that it was carried out."""

_LASTS = {"agent": LONGEST, "worker": SKEW}
"""Seconds for which a message to such a queue is believed, once.  Answers are to questions that are open."""

_PURPOSE = "skep bus 1"
"""What is signed here is signed for nothing else."""
_REMEMBERED = 1000
_KEPT = 8192
"""Keys of others, and ids of what was asked."""

T = TypeVar("T")


class Signer(Protocol):
    """Signs in the name of this process, and knows in whose name something was signed."""

    def sign(self, content: bytes, to: bytes = b"") -> bytes:
        """For all, or for the process whose key was `announced` under that name alone."""

    def signer(self, content: bytes, signature: bytes) -> Sender:
        """Raises Unauthenticated: it is nobody's of this installation, or not for this content."""

    def announced(self, signature: bytes) -> bytes:
        """The key that came with a signature; empty: none did."""


class _Signature(msgspec.Struct, frozen=True, array_like=True):
    """`at`: when it was signed, in the sender's clock, in seconds since 1970."""

    at: float
    proof: bytes


_decoder = msgspec.msgpack.Decoder(_Signature)


class SignedBus:
    """Satisfies `bus.Bus`.  Events are hints and go unsigned.

    `required=False`: what is not signed at all is taken, for as long as processes of a release are there that
    does not sign.  What is signed wrongly never is.
    """

    def __init__(
        self, bus: Bus, signer: Signer, *, required: bool = True, now: Callable[[], float] = time.time
    ) -> None:
        self._bus = bus
        self._signer = signer
        self._required = required
        self._now = now
        self._refusals = Refusals()
        self._replays = Replays()
        self._keys: dict[str, bytes] = {}
        """Which key whoever serves a queue has announced."""
        self._asked: dict[str, None] = {}
        """What was proved by a key that its receiver may have no more."""

    async def send(self, key: str, message: Message) -> None:
        """Signed anew each time, so that what is asked again is as young as it can be."""
        at = self._now()
        proof = self._signer.sign(_content(key, message, at), self._key_of(key, message))
        signature = msgspec.msgpack.encode(_Signature(at, proof))
        await self._bus.send(key, msgspec.structs.replace(message, signature=signature))

    def serve(
        self, key: str, handler: Handler, *, durable: bool = True, at_once: int = 64
    ) -> AbstractAsyncContextManager[None]:
        async def check(message: Message) -> None:
            try:
                sender, at = self._sender(key, message)
            except (Unauthenticated, Forbidden) as error:
                self._refusals.say(key, error.message)
                return
            await handler(msgspec.structs.replace(message, sender=sender))
            if sender is not None and _LASTS.get(_room(key)):
                self._replays.note(key, sender, at, message.id, self._now() - _LASTS[_room(key)])

        return self._bus.serve(key, check, durable=durable, at_once=at_once)

    async def declare(self, key: str) -> None:
        await self._bus.declare(key)

    async def drop(self, key: str) -> None:
        await self._bus.drop(key)

    def publish(self, key: str, body: bytes) -> None:
        self._bus.publish(key, body)

    def subscribe(self, prefix: str) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        return self._bus.subscribe(prefix)

    async def depths(self, keys: Iterable[str]) -> dict[str, Depth]:
        return await self._bus.depths(keys)

    async def dead(self, limit: int = 100) -> list[DeadLetter]:
        return await self._bus.dead(limit)

    def _sender(self, key: str, message: Message) -> tuple[Sender | None, float]:
        """Who sent it, and when it was signed; None: it is not signed, and need not be."""
        if not message.signature and not self._required:
            return None, 0.0
        if not message.signature:
            raise Unauthenticated(
                "It is not signed. If it is of a process of the release before, set 'signatures: optional' "
                "until that is upgraded."
            )
        signature = _signature_of(message)
        sender = self._signer.signer(_content(key, message, signature.at), signature.proof)
        if not may_send(key, sender):
            raise Forbidden(f"{told(sender)} has nothing to say here.")
        if not _is_fresh(key, self._now() - signature.at):
            raise Unauthenticated(
                f"{told(sender)} signed it too long ago, or the clocks of the two machines differ by more "
                f"than {SKEW:g} s."
            )
        if self._replays.knows(key, sender, signature.at, message.id):
            raise Unauthenticated(f"{told(sender)} has said it before.")
        self._learn(message, sender, self._signer.announced(signature.proof))
        return sender, signature.at

    def _learn(self, message: Message, sender: Sender, announced: bytes) -> None:
        """How answers to it, and what is asked of the host next, may be proved."""
        queues = [f"agent.{sender.host}"] if sender.host is not None else []
        queues += [message.reply_to] if _is_reply_of(sender, message.reply_to) else []
        for queue in queues:
            self._keys.pop(queue, None)
            if announced:
                _put(self._keys, queue, announced)

    def _key_of(self, key: str, message: Message) -> bytes:
        """Empty: it must be signed."""
        if _room(key) == "reply":
            return self._keys.get(key, b"")
        known = self._keys.get(key.removesuffix(".now"), b"")
        if not known or message.durable or message.id in self._asked:
            return b""
        _put(self._asked, message.id, None)
        return known


class Refusals:
    """What is refused again and again for one reason is said once."""

    def __init__(self) -> None:
        self._said: set[tuple[str, str]] = set()

    def say(self, key: str, reason: str) -> None:
        if (key, reason) in self._said:
            return
        if len(self._said) >= _REMEMBERED:
            self._said.clear()
        self._said.add((key, reason))
        log.warning("message.refused", key=key, reason=reason)


def _room(key: str) -> str:
    return key.partition(".")[0]


def _is_reply_of(sender: Sender, queue: str) -> bool:
    """A host has answers sent to queues of its own name, and control to any others."""
    own = f"reply.agent.{sender.host}."
    return queue.startswith(own) if sender.host is not None else not queue.startswith("reply.agent.")


def _put(remembered: dict[str, T], key: str, value: T) -> None:
    """The oldest is forgotten."""
    if len(remembered) >= _KEPT:
        del remembered[next(iter(remembered))]
    remembered[key] = value


def may_send(key: str, sender: Sender) -> bool:
    """Hosts are told what to do by control alone, and zones are asked by hosts alone."""
    room = _room(key)
    if room == "agent":
        return sender.host is None
    return room != "worker" or sender.host is not None


def may_answer(key: str, sender: Sender) -> bool:
    """What was asked of a host is answered by that host, what was asked of a zone by control."""
    room, _, name = key.partition(".")
    return sender.host == name if room == "agent" else sender.host is None


def told(sender: Sender) -> str:
    """As messages name it."""
    return f"Control process {sender.name!r}" if sender.host is None else f"Host {sender.host!r}"


_asking: ContextVar[Sender | None] = ContextVar("sender", default=None)


def asking() -> Sender | None:
    """Who asked for what is being carried out; None: nobody beyond a wire."""
    return _asking.get()


@contextmanager
def asked_by(sender: Sender | None) -> Iterator[None]:
    """Tasks that are begun meanwhile are carried out for the sender."""
    token = _asking.set(sender)
    try:
        yield
    finally:
        _asking.reset(token)


def _is_fresh(key: str, age: float) -> bool:
    """An answer is to a question that is asked once, however old it is; a host remembers its commands."""
    longest = _LASTS.get(_room(key))
    return longest is None or -SKEW <= age <= longest


def _content(key: str, message: Message, at: float) -> bytes:
    return msgspec.msgpack.encode((_PURPOSE, key, message.id, message.reply_to, at, message.body))


def _signature_of(message: Message) -> _Signature:
    try:
        return _decoder.decode(message.signature)
    except msgspec.MsgspecError as error:
        raise Unauthenticated("Its signature cannot be read.") from error
