"""Steps: typed async functions that flows wire together, and the undo of each.

    @step
    async def allocate(cx: Context[Env], network: NetworkId, replica: ReplicaId) -> Port: ...

    @allocate.undo
    async def release(cx: Context[Env], network: NetworkId, replica: ReplicaId) -> None: ...

An undo gets what its step got, never what it returned: the step may have died half-way.  It must succeed if
the step never ran.
"""

import inspect
import math
from collections.abc import Awaitable, Callable
from functools import update_wrapper
from typing import Concatenate, Generic, Literal, NewType, ParamSpec, TypeVar, overload

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

RunId = NewType("RunId", str)

Kind = Literal["idempotent", "transactional", "at-most-once"]
"""idempotent: an external effect, keyed by `Context.key`, that may be asked for again after a crash.
transactional: its database writes commit together with its result, exactly once.
at-most-once: never asked for twice; on doubt the run waits for an operator."""

E = TypeVar("E")
P = ParamSpec("P")
R = TypeVar("R")


class Retry(Exception):
    """Not possible yet.  The only error a step raises on purpose to be tried again.

    `after`: seconds to wait; None leaves it to the engine's back-off.  The engine gives up when the step's
    timeout has passed since its first attempt (five minutes if it has none).
    """

    def __init__(self, message: str = "", after: float | None = None) -> None:
        if after is not None and not (isinstance(after, int | float) and 0 <= after < math.inf):
            raise ValueError(f"Retry(after={after!r}): give seconds, 0 or more")
        super().__init__(message or "not possible yet")
        self.after = after

    @property
    def message(self) -> str:
        return str(self)


def _nobody(_message: str) -> None:
    """Outside an engine nobody listens to progress."""


def _silent() -> None:
    """Nor to signs of life."""


class Context(Struct, Generic[E], frozen=True):
    """What a step is told beside its arguments.  In a unit test `Context(env)` is enough."""

    env: E
    run: RunId = RunId("")
    step: str = ""
    attempt: int = 1
    epoch: int = 1
    """Grows each time a run changes hands; whoever is asked with an older one than before should refuse."""
    connection: AsyncConnection | None = None
    undoing: bool = False
    report: Callable[[str], None] = _nobody
    beat: Callable[[], None] = _silent
    round: int = 0
    """How often the run was tried again after it had failed."""

    @property
    def key(self) -> str:
        """The same for every attempt of this step in this run, and this round of it; the undo has its own."""
        return "/".join(
            filter(None, (self.run, self.step, str(self.round or ""), "undo" if self.undoing else ""))
        )

    @property
    def tx(self) -> AsyncConnection:
        """The transaction in which the result is recorded (transactional steps only)."""
        if self.connection is None:
            raise RuntimeError(f"step {self.step or '?'} is not transactional: it has no transaction")
        return self.connection

    def progress(self, message: str) -> None:
        """Tell whoever follows the run; kept in its history, not awaited.  Also a sign of life."""
        self.report(message)
        self.beat()

    def heartbeat(self) -> None:
        """A sign of life, for steps that said `heartbeat=`: without one for so long they are interrupted."""
        self.beat()


Function = Callable[Concatenate[Context[E], P], Awaitable[R]]


class Step(Generic[E, P, R]):
    """A step's code.  Stays awaitable as the plain function it decorates."""

    def __init__(
        self,
        do: Callable[Concatenate[Context[E], P], Awaitable[R]],
        *,
        kind: Kind = "idempotent",
        name: str | None = None,
        retry: int = 0,
        timeout: float | None = None,
        heartbeat: float | None = None,
    ) -> None:
        if not inspect.iscoroutinefunction(do):
            raise TypeError(f"step {do!r} must be an async function")
        if retry < 0 or any(limit is not None and limit <= 0 for limit in (timeout, heartbeat)):
            raise ValueError(
                f"step {do.__name__}: retry must be 0 or more, timeout and heartbeat more than 0 seconds"
            )
        if retry and kind == "at-most-once":
            raise ValueError(f"step {do.__name__}: an at-most-once step cannot have retry")
        update_wrapper(self, do)
        self.do = do
        self.kind = kind
        self.name = name or do.__name__
        self.retry = retry
        self.timeout = timeout
        self.heartbeat = heartbeat
        self.undo_do: Callable[Concatenate[Context[E], P], Awaitable[object]] | None = None

    async def __call__(self, cx: Context[E], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self.do(cx, *args, **kwargs)

    def undo(
        self, function: Callable[Concatenate[Context[E], P], Awaitable[object]]
    ) -> Callable[Concatenate[Context[E], P], Awaitable[object]]:
        """Decorator: `function` takes back whatever this step did, all, part or nothing of it."""
        if self.undo_do is not None:
            raise ValueError(f"step {self.name} has an undo already")
        self.undo_do = function
        return function


@overload
def step(do: Callable[Concatenate[Context[E], P], Awaitable[R]], /) -> Step[E, P, R]: ...


@overload
def step(
    *,
    kind: Kind = "idempotent",
    name: str | None = None,
    retry: int = 0,
    timeout: float | None = None,
    heartbeat: float | None = None,
) -> Callable[[Callable[Concatenate[Context[E], P], Awaitable[R]]], Step[E, P, R]]: ...


def step(
    do: Callable[Concatenate[Context[E], P], Awaitable[R]] | None = None,
    /,
    *,
    kind: Kind = "idempotent",
    name: str | None = None,
    retry: int = 0,
    timeout: float | None = None,
    heartbeat: float | None = None,
) -> Step[E, P, R] | Callable[[Callable[Concatenate[Context[E], P], Awaitable[R]]], Step[E, P, R]]:
    """Make a step of an async function; `timeout` in seconds, per attempt.  A flow may override both.

    `heartbeat`: an attempt that gives no sign of life (`cx.heartbeat`, `cx.progress`) for so many seconds is
    interrupted and has failed.
    """

    def decorate(function: Callable[Concatenate[Context[E], P], Awaitable[R]]) -> Step[E, P, R]:
        return Step(function, kind=kind, name=name, retry=retry, timeout=timeout, heartbeat=heartbeat)

    return decorate if do is None else decorate(do)
