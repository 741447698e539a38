"""Hours in milliseconds: an event loop whose time jumps to the next timer once nothing else can happen.

trio's autojump clock is the model.  A loop that jumps whenever its selector is idle would also jump while a
thread of the database is still at work, and every timeout would pass; so this one first looks whether a task
waits for a database driver or for a thread.
"""

import asyncio
import functools
import gc
import selectors
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from types import AsyncGeneratorType, CoroutineType
from typing import Any, ParamSpec, TypeVar, TypeVarTuple, cast

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
P = ParamSpec("P")

DRIVERS = frozenset({"aiosqlite", "asyncpg"})
"""Packages in which a task waits for reality."""
LOOK_AGAIN = 0.05
"""Real seconds between two looks at work that is under way; its end is noticed at once."""
GRACE = 0.001
"""Real seconds that open sockets have to bring news before time jumps."""
PATIENCE = 30.0
"""Real seconds without a timer and without news, after which a scenario is given up."""


class Stuck(AssertionError):
    """Nothing can happen any more: no timer is set, and whoever waits waits for nothing real."""


class VirtualTime:
    """A wall clock (`time`, for `FlowEngine(clock=...)`) and a loop in which all sleeping is free.

    Database work and `run_in_executor` are waited for as long as they really take; other things that take
    real time (a process, a thread of one's own) want `with virtual.held():` around them.
    """

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        """`start`: seconds since 1970."""
        self._wall = start
        self._monotonic = 1000.0
        self._holds = 0

    def time(self) -> float:
        """Seconds since 1970."""
        return self._wall + self._monotonic

    def monotonic(self) -> float:
        """The loop's own time; it never goes back."""
        return self._monotonic

    def shift(self, seconds: float) -> None:
        """Set the wall clock forward, or back if negative, as an administrator or a leap would.

        Timers and timeouts do not notice.
        """
        self._wall += seconds

    @contextmanager
    def held(self) -> Iterator[None]:
        """No jumps meanwhile."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """As `asyncio.run`, in this time.  It goes on where the last one ended.

        Raises:
            Stuck: nothing can happen any more.
        """
        with asyncio.Runner(loop_factory=self._make_loop) as runner:
            return runner.run(main)

    def _make_loop(self) -> "VirtualLoop":
        return VirtualLoop(self)

    def _jump(self, seconds: float) -> None:
        self._monotonic += seconds

    @property
    def _is_held(self) -> bool:
        return self._holds > 0


def wall_clock() -> Callable[[], float]:
    """That of the running loop: virtual in virtual time, else the real one."""
    loop = asyncio.get_running_loop()
    return loop.wall_clock if isinstance(loop, VirtualLoop) else time.time


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop of a `VirtualTime`."""

    def __init__(self, virtual: VirtualTime) -> None:
        self._virtual = virtual
        self._jobs = 0
        super().__init__(_JumpingSelector(virtual._jump, self._is_busy, self._who_waits))

    def time(self) -> float:
        return self._virtual.monotonic()

    def wall_clock(self) -> float:
        return self._virtual.time()

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        self._jobs += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._job_done)
        return future

    def _job_done(self, _future: object) -> None:
        self._jobs -= 1

    def _is_busy(self) -> bool:
        return self._virtual._is_held or self._jobs > 0 or any(map(waits_for_driver, asyncio.all_tasks(self)))

    def _who_waits(self) -> str:
        return "; ".join(sorted(repr(task) for task in asyncio.all_tasks(self)))


class _JumpingSelector(selectors.DefaultSelector):
    """Asked to wait until the next timer, it does not wait but has time jump there."""

    def __init__(
        self, jump: Callable[[float], None], is_busy: Callable[[], bool], who_waits: Callable[[], str]
    ) -> None:
        super().__init__()
        self._jump = jump
        self._is_busy = is_busy
        self._who_waits = who_waits

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0.0)
        if found or (timeout is not None and timeout <= 0.0):
            return found
        found = self._when_idle()
        if found or timeout is None:
            return found or self._last_chance()
        self._jump(timeout)
        return []

    def _when_idle(self) -> list[tuple[selectors.SelectorKey, int]]:
        """What reality still has to say."""
        while self._is_busy():
            found = super().select(LOOK_AGAIN)
            if found:
                return found
        sockets = len(self.get_map()) > 1  # beside the loop's own
        return super().select(GRACE) if sockets else []

    def _last_chance(self) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(PATIENCE)
        if not found:
            raise Stuck(f"nothing can happen any more; there wait: {self._who_waits()}")
        return found


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Decorator: an async test in virtual time.  If it takes `virtual`, that must be its `VirtualTime`.

    The fixtures of such a test must not belong to another event loop: it opens its engine itself.
    """

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        given = kwargs.get("virtual")
        virtual = given if isinstance(given, VirtualTime) else VirtualTime()
        virtual.run(test(*args, **kwargs))

    return run


def waits_for_driver(task: asyncio.Task[Any]) -> bool:
    """Whether a coroutine that the task is inside of belongs to a driver, or its last one to SQLAlchemy.

    SQLAlchemy awaits futures of the driver in its own name; what it waits for otherwise (a connection that
    somebody else holds) it has a coroutine of asyncio's for.
    """
    package, awaited = "", cast("object", task.get_coro())
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "ag_frame", None)
        if frame is not None:
            package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package in DRIVERS:
            return True
        awaited = _awaited_by(awaited)
    return package == "sqlalchemy"


def _awaited_by(awaiting: object) -> object:
    """The next link of the chain from a task to what it waits for; None at its end."""
    for attribute in ("cr_await", "ag_await", "gi_yieldfrom"):
        if hasattr(awaiting, attribute):
            return getattr(awaiting, attribute)
    # The wrappers of `__await__` and of asynchronous generators do not tell what they wrap.
    wrapped = (CoroutineType, AsyncGeneratorType)
    return next((item for item in gc.get_referents(awaiting) if isinstance(item, wrapped)), None)
