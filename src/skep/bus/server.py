"""Carries out calls that come over a bus, each once at a time, and answers them.

With receipts a command is durable before the bus hears that it arrived: one that was cut short is carried
out again by the next server, one that is asked twice gets its recorded answer.
"""

import asyncio
import contextlib
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import msgspec
import structlog

from skep.bus.bus import Bus, Message, Sender
from skep.bus.calls import Answer, Call, decode, encode, quick
from skep.bus.methods import Methods
from skep.bus.signing import Refusals, asked_by, told
from skep.flow.errors import CommitFailed
from skep.model.errors import NotFound, SkepError, Stale, Unavailable
from skep.model.faults import fault_of

log = structlog.get_logger(__name__)

T = TypeVar("T")

_ANSWER_LIFETIME = 60.0
"""Seconds that a reply may wait for its asker, who asks again long before."""
ABANDONED = 60.0
"""Seconds without being asked again after which whoever asked has died; askers repeat themselves in five."""
PATIENCE = 15.0
"""Seconds for which a question waits for a database that is being restarted."""
_REST = 0.2
_GATHERING = 0.1
"""Seconds in which lines of progress gather before they travel together."""


class Received(msgspec.Struct, frozen=True):
    call: Call
    reply_to: str


class Receipts(Protocol):
    """What a server remembers beyond its own life."""

    async def receive(self, received: Received) -> Answer | None:
        """Returns once it is durable; the answer, if it was carried out before.

        Raises:
            Stale: a newer stamp of the same step was seen.
        """

    async def answered(self, answer: Answer) -> None:
        """Returns once it is durable."""

    async def unanswered(self) -> list[Received]:
        """In the order they came."""


@dataclass(slots=True)
class _Going:
    """A call that is being received or carried out."""

    call: Call
    reply_to: str
    sender: Sender | None
    kept: "asyncio.Future[None]"
    task: "asyncio.Task[None] | None" = None
    work: "asyncio.Task[msgspec.Raw] | None" = None
    given_up: SkepError | None = None
    lines: list[str] = field(default_factory=list)
    asked: float = field(default_factory=lambda: asyncio.get_running_loop().time())

    def is_of(self, sender: Sender | None) -> bool:
        """What was taken up after a restart, and what is not signed, is of nobody."""
        if self.sender is None or sender is None:
            return True
        return (self.sender.host, self.sender.name) == (sender.host, sender.name)

    def not_kept(self, error: Exception) -> None:
        """Whoever delivers it is to do so again."""
        if not self.kept.done():
            self.kept.set_exception(error)
            self.kept.exception()  # also when nobody waits for it

    def give_up(self, reason: SkepError) -> None:
        """End it if it has begun, and do not begin it otherwise."""
        self.given_up = self.given_up or reason
        if self.work is not None:
            self.work.cancel()


class CallServer:
    """Serves the methods on the queue of the key while entered."""

    def __init__(
        self,
        bus: Bus,
        key: str,
        methods: Methods,
        receipts: Receipts | None = None,
        *,
        abandoned: float = ABANDONED,
    ) -> None:
        self._bus = bus
        self._key = key
        self._methods = methods
        self._receipts = receipts
        self._abandoned = abandoned
        self._going: dict[str, _Going] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ending = False
        self._refusals = Refusals()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """What an earlier server left undone begins before anything new does."""
        for received in await self._receipts.unanswered() if self._receipts else []:
            log.info("call.taken-up", method=received.call.method, id=received.call.id)
            self._begin(received.call, received.reply_to, None, known=True)
        await self._stack.enter_async_context(self._bus.serve(self._key, self._handle))
        if (beside := quick(self._key)) != self._key:
            await self._stack.enter_async_context(self._bus.serve(beside, self._handle, durable=False))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Calls under way are left as by a crash: the next server takes them up."""
        await self._stack.aclose()
        self._ending = True
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)

    async def _handle(self, message: Message) -> None:
        """Returns once the call is durable, or needs not be."""
        call = decode(message.body, Call)
        going = self._going.get(call.id)
        if message.sender is not None and going is not None and not going.is_of(message.sender):
            self._refusals.say(self._key, f"{told(message.sender)} asks in the name of somebody else.")
        elif call.withdrawn and going is not None:
            going.give_up(Unavailable("Nobody waits for it any longer."))
        elif call.withdrawn:
            return
        elif going is None:
            await asyncio.shield(self._begin(call, message.reply_to, message.sender).kept)
        else:
            going.asked = asyncio.get_running_loop().time()
            await asyncio.shield(going.kept)
            self._say_working(going)

    def _begin(self, call: Call, reply_to: str, sender: Sender | None, *, known: bool = False) -> _Going:
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        going = _Going(call, reply_to, sender, kept)
        self._going[call.id] = going
        if known:
            kept.set_result(None)
        going.task = self._spawn(self._go(going))
        return going

    async def _go(self, going: _Going) -> None:
        """From receipt to reply."""
        try:
            answer = await self._receive(going)
            if answer is None:
                answer = await self._carry_out(going)
                await self._record(going.call, answer)
        except asyncio.CancelledError:
            going.not_kept(Unavailable("This process is ending."))
            raise
        except Exception as error:  # of the receipts: the bus delivers it again, or the asker asks again
            log.warning("call.not-recorded", method=going.call.method, error=str(error))
            going.not_kept(error)
            return
        finally:
            del self._going[going.call.id]
        await self._reply(going.reply_to, msgspec.structs.replace(answer, lines=tuple(going.lines)))

    async def _receive(self, going: _Going) -> Answer | None:
        answer = None
        if going.call.command and self._receipts is not None and not going.kept.done():
            try:
                answer = await self._receipts.receive(Received(going.call, going.reply_to))
            except Stale as error:
                answer = self._failed(going.call, error)
        if not going.kept.done():
            going.kept.set_result(None)
        return answer

    async def _carry_out(self, going: _Going) -> Answer:
        """Older tries of the same step end first: theirs must not be the last word."""
        await self._end_older(going.call)
        if going.given_up is not None:
            return self._failed(going.call, going.given_up)
        with asked_by(going.sender):
            going.work = self._spawn(self._work(going))
        try:
            await self._end_of(going, going.work)
        finally:
            going.work.cancel()
        if going.work.cancelled():
            return self._failed(going.call, going.given_up or Unavailable("It was cut short on its host."))
        error = going.work.exception()
        if error is None:
            return Answer(id=going.call.id, version=self._methods.version, result=going.work.result())
        if isinstance(error, CommitFailed):  # of a database that is away: who asked may do so again
            return self._failed(going.call, Unavailable(error.message))
        if not isinstance(error, SkepError):
            log.error("call.failed", method=going.call.method, exc_info=error)
        return self._failed(going.call, error)

    async def _work(self, going: _Going) -> msgspec.Raw:
        """A question waits while the database is away, as long as somebody who asks would."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while True:
            try:
                return await self._methods.carry_out(going.call, partial(self._progress, going))
            except CommitFailed:
                if going.call.command or asyncio.get_running_loop().time() > deadline:
                    raise
            await asyncio.sleep(_REST)

    async def _end_of(self, going: _Going, work: "asyncio.Task[msgspec.Raw]") -> None:
        """A command goes on to its end; a query only for as long as somebody asks again and again."""
        while not work.done():
            await asyncio.wait([work], timeout=None if going.call.command else self._abandoned)
            if asyncio.get_running_loop().time() - going.asked > self._abandoned and not going.call.command:
                going.give_up(Unavailable("Nobody waits for it any longer."))

    async def _end_older(self, call: Call) -> None:
        if call.stamp is None or not call.command:
            return
        older = [
            going
            for going in self._going.values()
            if going.call.stamp is not None
            and going.call.stamp.fence == call.stamp.fence
            and going.call.stamp.rank < call.stamp.rank
        ]
        for going in older:
            going.give_up(Stale())
        tasks = [going.task for going in older if going.task is not None]
        if tasks:
            await asyncio.wait(tasks)

    async def _record(self, call: Call, answer: Answer) -> None:
        if call.command and self._receipts is not None:
            await self._receipts.answered(answer)

    def _failed(self, call: Call, error: BaseException) -> Answer:
        return Answer(id=call.id, version=self._methods.version, fault=fault_of(error))

    def _progress(self, going: _Going, line: str) -> None:
        if not going.lines:
            asyncio.get_running_loop().call_later(_GATHERING, self._say_working, going)
        going.lines.append(line)

    def _say_working(self, going: _Going) -> None:
        if self._ending or going.call.id not in self._going:
            return
        lines, going.lines = tuple(going.lines), []
        answer = Answer(id=going.call.id, version=self._methods.version, state="working", lines=lines)
        self._spawn(self._reply(going.reply_to, answer))

    async def _reply(self, reply_to: str, answer: Answer) -> None:
        if not reply_to:
            return
        message = Message(id=answer.id, body=encode(answer), durable=False, lifetime=_ANSWER_LIFETIME)
        with contextlib.suppress(NotFound, Unavailable):  # who still waits asks again
            await self._bus.send(reply_to, message)

    def _spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
