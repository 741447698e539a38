"""What carries messages between processes: commands by queue, events by topic.

The docstrings are the contract; `tests/contracts/test_buses.py` runs against every implementation.  A bus
carries wake-ups and commands, never truth: a message may come twice, late or in another order, and what is
lost is found by asking again.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from msgspec import Struct


class Sender(Protocol):
    """A process of the installation, known by its certificate, which has the `serial`.

    `host`: the one it is the agent of; a process of control is of none.
    """

    @property
    def name(self) -> str: ...

    @property
    def host(self) -> str | None: ...

    @property
    def serial(self) -> str: ...


class Message(Struct, frozen=True, kw_only=True):
    """`id` is the sender's own: what is sent again has the same.  `reply_to` is a routing key.

    `durable`: kept by the broker until it is taken, also while it restarts.  `lifetime`: seconds after which
    nobody wants it any more.  `attempt` counts deliveries from 1 where the broker knows.  `sender`: whose the
    `signature` is, as a `SignedBus` found out; it does not travel.
    """

    id: str
    body: bytes
    reply_to: str = ""
    durable: bool = True
    lifetime: float | None = None
    attempt: int = 1
    signature: bytes = b""
    sender: Sender | None = None


Handler = Callable[[Message], Awaitable[None]]
"""Returns once the message may be forgotten: its receipt is durable.  What raises gets it again, and after
some attempts it goes to the dead letters, where `skep bus dead` shows it."""


class Event(Struct, frozen=True):
    key: str
    body: bytes


class Redelivery(Struct, frozen=True):
    """How often a message is tried before it is a dead letter, and how long it rests after a try that raised.

    It rests with its server, as one of those it has at once.
    """

    attempts: int = 20
    rest: float = 0.1
    longest: float = 5.0

    def pause(self, attempt: int) -> float:
        """Seconds after the try of this number: twice as long each time."""
        return min(self.longest, self.rest * 2.0 ** min(attempt - 1, 32))


class Depth(Struct, frozen=True):
    """What waits on a queue and is with no server yet, and how many serve it."""

    waiting: int
    servers: int


class DeadLetter(Struct, frozen=True, kw_only=True):
    """A message that was given up, the key it was sent to, and when that was (seconds since 1970)."""

    key: str
    message: Message
    at: float


class Bus(Protocol):
    """Routing keys are dotted words: `agent.host-1`, `worker.zone-1`, `event.TENANT.replica`, `reply.ID`."""

    async def send(self, key: str, message: Message) -> None:
        """Put the message on the queue of the key; returns once the broker keeps it.

        Raises:
            NotFound: there is no such queue: nobody has ever served the key.
            Unavailable: the broker does not answer, or refused; the message may have been kept all the same.
        """

    def serve(
        self, key: str, handler: Handler, *, durable: bool = True, at_once: int = 64
    ) -> AbstractAsyncContextManager[None]:
        """Take messages from the queue of the key while entered, `at_once` at most at a time.

        Makes the queue if need be.  A `durable` one stays with what is in it when nobody serves it; another
        one goes with its server, and only one process may serve it.  Several who serve the same key share its
        messages.  What was taken and whose handler did not return when this ends, comes again.

        Goes on by itself after the broker was away; if it is away at the beginning, entering takes a few
        seconds and then goes on without it.
        """

    async def declare(self, key: str) -> None:
        """Make the durable queue of the key, so that it keeps what is sent before anybody serves it.

        Raises Unavailable, as `drop` does.
        """

    async def drop(self, key: str) -> None:
        """Remove the queue of the key with what is in it; absent is success.

        One that is served is made anew, empty: end its servers first.
        """

    def publish(self, key: str, body: bytes) -> None:
        """Tell those who listen now.  Never waits, never fails: it may be lost."""

    def subscribe(self, prefix: str) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """Events from now on whose key begins with the words of `prefix`; a slow listener loses some."""

    async def depths(self, keys: Iterable[str]) -> dict[str, Depth]:
        """How it stands with those of the queues that exist.  Raises Unavailable."""

    async def dead(self, limit: int = 100) -> list[DeadLetter]:
        """The oldest dead letters; they stay where they are.  Raises Unavailable."""
