"""Asks over a bus and waits for the answer, whatever gets lost on the way.

What has no answer is asked again under the same id, every couple of seconds: a lost command, a lost reply, a
broker or a host that restarts cost time and nothing else.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeVar

import msgspec
import structlog

from skep import __version__
from skep.bus.bus import Bus, Message
from skep.bus.calls import Answer, Call, decode, encode, quick, result_of
from skep.bus.signing import Refusals, may_answer, told
from skep.bus.stamps import current_stamp
from skep.model.errors import NotFound, Unavailable
from skep.model.ids import new_id

log = structlog.get_logger(__name__)

T = TypeVar("T")
Arguments = Mapping[str, object]
"""By name; those that are None are left out."""


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds: between two askings at first and at most; without a sign of life until we give up.

    A step of a run has its own timeout and its undo: it waits longer than somebody who looks on.
    """

    first: float = 2.0
    longest: float = 5.0
    patience: float = 15.0
    patience_of_runs: float = 600.0


@dataclass(slots=True)
class _Waiting:
    key: str
    answer: "asyncio.Future[Answer]"
    progress: Callable[[str], None] | None
    heard: float = field(default_factory=lambda: asyncio.get_running_loop().time())


class CallClient:
    """One per process; `process` names it apart from all others, for its queue of replies."""

    def __init__(
        self, bus: Bus, process: str, *, pace: Pace | None = None, version: str = __version__
    ) -> None:
        self._bus = bus
        self._reply_to = f"reply.{process}"
        self._pace = pace or Pace()
        self._version = version
        self._waiting: dict[str, _Waiting] = {}
        self._refusals = Refusals()
        self._farewells: set[asyncio.Task[None]] = set()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._bus.serve(self._reply_to, self._heard, durable=False))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._farewells:
            await asyncio.wait(self._farewells, timeout=1.0)
        await self._stack.aclose()

    async def ask(self, key: str, method: str, returns: type[T], arguments: Arguments) -> T:
        """Call something that only reads.

        Raises:
            Unavailable: who serves the key gave no sign of life.
        """
        return await self._call(key, method, returns, arguments, command=False)

    async def tell(
        self,
        key: str,
        method: str,
        returns: type[T],
        arguments: Arguments,
        progress: Callable[[str], None] | None = None,
    ) -> T:
        """Call something that changes what is there: in a run it is kept until it is done.

        Raises:
            Unavailable: who serves the key gave no sign of life; it may be done all the same.
            Stale: the step of the run that asks is in other hands by now.
        """
        return await self._call(key, method, returns, arguments, command=True, progress=progress)

    def give_up(self, key: str) -> None:
        """Who serves the key is no more: nobody waits for it any longer."""
        for waiting in self._waiting.values():
            if waiting.key == key and not waiting.answer.done():
                waiting.answer.set_exception(Unavailable(f"{_name_of(key)} is no more."))

    async def _call(
        self,
        key: str,
        method: str,
        returns: type[T],
        arguments: Arguments,
        *,
        command: bool,
        progress: Callable[[str], None] | None = None,
    ) -> T:
        given = {name: value for name, value in arguments.items() if value is not None}
        call = Call(
            id=new_id(),
            method=method,
            arguments=msgspec.Raw(encode(given)),
            version=self._version,
            command=command,
            stamp=current_stamp(),
        )
        waiting = _Waiting(key, asyncio.get_running_loop().create_future(), progress)
        self._waiting[call.id] = waiting
        try:
            answer = await self._answer(key, call, waiting)
        except (asyncio.CancelledError, Unavailable):
            self._withdraw(key, call)
            raise
        finally:
            del self._waiting[call.id]
        return result_of(answer, returns, call.method)

    async def _answer(self, key: str, call: Call, waiting: _Waiting) -> Answer:
        in_run = call.stamp is not None and bool(call.stamp.run)
        patience = self._pace.patience_of_runs if in_run else self._pace.patience
        durable = call.command and in_run
        for pause in self._pauses():
            if await self._sent(key, call, durable=durable, lifetime=None if durable else pause):
                durable = False  # the broker has it: from now on only the answer is asked for
            await asyncio.wait([waiting.answer], timeout=pause)
            if waiting.answer.done():
                return waiting.answer.result()
            if asyncio.get_running_loop().time() - waiting.heard > patience:
                raise Unavailable(f"{_name_of(key)} does not answer ({call.method}).")
        raise AssertionError("pauses never end")

    async def _sent(self, key: str, call: Call, *, durable: bool, lifetime: float | None) -> bool:
        message = Message(
            id=call.id, body=encode(call), reply_to=self._reply_to, durable=durable, lifetime=lifetime
        )
        try:
            await self._bus.send(key if durable else quick(key), message)
        except (Unavailable, NotFound) as error:
            log.info("call.not-sent", key=key, method=call.method, error=error.message)
            return False
        return True

    def _withdraw(self, key: str, call: Call) -> None:
        """Nobody waits any longer; who has not heard of it finds out by the fence."""

        async def tell() -> None:
            farewell = msgspec.structs.replace(call, arguments=msgspec.Raw(b"\x80"), withdrawn=True)
            message = Message(
                id=f"{call.id}.withdrawn", body=encode(farewell), durable=False, lifetime=self._pace.patience
            )
            with contextlib.suppress(Unavailable, NotFound):
                await self._bus.send(quick(key), message)

        task = asyncio.create_task(tell(), name="call-withdrawn")
        self._farewells.add(task)
        task.add_done_callback(self._farewells.discard)

    async def _heard(self, message: Message) -> None:
        try:
            answer = decode(message.body, Answer)
        except msgspec.MsgspecError as error:
            log.warning("call.answer-unreadable", error=str(error))
            return
        waiting = self._waiting.get(answer.id)
        if waiting is None or waiting.answer.done():
            return
        if message.sender is not None and not may_answer(waiting.key, message.sender):
            self._refusals.say(waiting.key, f"{told(message.sender)} answers for somebody else.")
            return
        waiting.heard = asyncio.get_running_loop().time()
        if waiting.progress is not None:
            for line in answer.lines:
                waiting.progress(line)
        if answer.state == "done":
            waiting.answer.set_result(answer)

    def _pauses(self) -> Iterator[float]:
        pause = self._pace.first
        while True:
            yield pause
            pause = min(pause * 1.5, self._pace.longest)


def _name_of(key: str) -> str:
    room, _, name = key.partition(".")
    return f"Host {name!r}" if room == "agent" else f"Nobody in zone {name!r}" if room == "worker" else key
