"""The bus within one process: what is durable lives as long as the process does."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial

import structlog
from msgspec import Struct
from msgspec.structs import replace

from skep.bus.backlog import Backlog
from skep.bus.bus import DeadLetter, Depth, Event, Handler, Message, Redelivery
from skep.model.errors import NotFound

log = structlog.get_logger()

KEPT = 10_000
"""Dead letters; older ones are forgotten."""


class _Parcel(Struct, frozen=True):
    message: Message
    expires: float | None
    """In the clock of the process."""


class _Queue:
    def __init__(self, key: str, durable: bool) -> None:
        self.key = key
        self.durable = durable
        self.servers = 0
        self.parcels: asyncio.Queue[_Parcel] = asyncio.Queue()

    def empty(self) -> None:
        while not self.parcels.empty():
            self.parcels.get_nowait()


class InProcessBus:
    """Satisfies `bus.Bus`."""

    def __init__(
        self,
        redelivery: Redelivery = Redelivery(),  # noqa: B008 - frozen
        *,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redelivery = redelivery
        self._now = now
        self._monotonic = monotonic
        self._queues: dict[str, _Queue] = {}
        self._listeners: dict[Backlog, tuple[str, ...]] = {}
        self._dead: deque[DeadLetter] = deque(maxlen=KEPT)

    async def send(self, key: str, message: Message) -> None:
        """Lets others run, too: who sends without end must not stop those who take."""
        await asyncio.sleep(0)
        queue = self._queues.get(key)
        if queue is None:
            raise NotFound(f"Nobody has ever served {key!r}.")
        expires = None if message.lifetime is None else self._monotonic() + message.lifetime
        queue.parcels.put_nowait(_Parcel(message, expires))

    @asynccontextmanager
    async def serve(
        self, key: str, handler: Handler, *, durable: bool = True, at_once: int = 64
    ) -> AsyncIterator[None]:
        queue = self._queues.setdefault(key, _Queue(key, durable))
        queue.servers += 1
        task = asyncio.create_task(self._work(queue, handler, at_once), name=f"bus {key}")
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            queue.servers -= 1
            if not queue.durable and not queue.servers:
                self._queues.pop(key, None)

    async def declare(self, key: str) -> None:
        self._queues.setdefault(key, _Queue(key, durable=True))

    async def drop(self, key: str) -> None:
        queue = self._queues.get(key)
        if queue is not None:
            queue.empty()
            if not queue.servers:
                del self._queues[key]

    def publish(self, key: str, body: bytes) -> None:
        event = Event(key, body)
        words = tuple(key.split("."))
        for backlog, prefix in self._listeners.items():
            if words[: len(prefix)] == prefix:
                backlog.put(event)

    @asynccontextmanager
    async def subscribe(self, prefix: str) -> AsyncIterator[AsyncIterator[Event]]:
        backlog = Backlog()
        self._listeners[backlog] = tuple(prefix.split("."))
        try:
            yield backlog.drain()
        finally:
            del self._listeners[backlog]

    async def depths(self, keys: Iterable[str]) -> dict[str, Depth]:
        found = {key: self._queues[key] for key in keys if key in self._queues}
        return {key: Depth(queue.parcels.qsize(), queue.servers) for key, queue in found.items()}

    async def dead(self, limit: int = 100) -> list[DeadLetter]:
        return list(self._dead)[:limit]

    async def _work(self, queue: _Queue, handler: Handler, at_once: int) -> None:
        free = asyncio.Semaphore(at_once)
        async with asyncio.TaskGroup() as tasks:
            while True:
                await free.acquire()
                parcel = await self._next(queue)
                task = tasks.create_task(self._deliver(queue, parcel, handler))
                task.add_done_callback(partial(self._settle, queue, parcel, free))

    async def _next(self, queue: _Queue) -> _Parcel:
        while True:
            parcel = await queue.parcels.get()
            if parcel.expires is None or parcel.expires > self._monotonic():
                return parcel

    async def _deliver(self, queue: _Queue, parcel: _Parcel, handler: Handler) -> None:
        message = parcel.message
        try:
            await handler(message)
        except Exception:
            log.exception("bus.refused", key=queue.key, id=message.id, attempt=message.attempt)
            await asyncio.sleep(self._redelivery.pause(message.attempt))
            self._again(queue, parcel)

    def _settle(
        self, queue: _Queue, parcel: _Parcel, free: asyncio.Semaphore, task: asyncio.Task[None]
    ) -> None:
        """A callback and no `except`: what is cancelled before its first step never runs."""
        free.release()
        if task.cancelled():
            self._again(queue, parcel)

    def _again(self, queue: _Queue, parcel: _Parcel) -> None:
        message = parcel.message
        if message.attempt >= self._redelivery.attempts:
            self._dead.append(DeadLetter(key=queue.key, message=message, at=self._now()))
        else:
            again = replace(message, attempt=message.attempt + 1)
            queue.parcels.put_nowait(_Parcel(again, parcel.expires))
