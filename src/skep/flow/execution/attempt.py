"""One call of a step's code, or of its undo, and what came of it.  Knows nothing of graphs and journals."""

import asyncio
import math
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, ClassVar

import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy.exc import DBAPIError

from skep.flow.definition.catalogue import Code
from skep.flow.definition.hints import describe
from skep.flow.errors import CodeLost, CommitFailed
from skep.flow.steps import Context, Retry

log = structlog.get_logger(__name__)

TRANSACTION_TIMEOUT = 30.0
"""Seconds a transactional step may take if nothing is said: while it runs nobody else can commit."""
UNDO_TIMEOUT = 300.0
LARGEST_RESULT = 16 * 1024 * 1024
"""Bytes of JSON: it is kept in memory while the run goes on."""


class Success(Struct, frozen=True):
    word: ClassVar[str] = "succeeded"
    value: Any
    stored: bytes
    """The value as JSON."""


class Failure(Struct, frozen=True):
    word: ClassVar[str] = "failed"
    message: str


class NotCalled(Struct, frozen=True):
    """There was nobody to call, or nothing to call it with: the code did not run."""

    word: ClassVar[str] = "failed"
    message: str


class Gone(Struct, frozen=True):
    """Where it was to be called is no more: the code did not run, and never will."""

    word: ClassVar[str] = "failed"
    message: str


class Postponed(Struct, frozen=True):
    """The step raised `Retry`."""

    word: ClassVar[str] = "postponed"
    message: str
    after: float | None


class Doubt(Struct, frozen=True):
    """An at-most-once step that may have had its effect."""

    word: ClassVar[str] = "in-doubt"
    message: str


class Disconnected(Struct, frozen=True):
    """The database did not take the transaction; nothing happened, and it does not count as a try."""

    word: ClassVar[str] = "lost"
    message: str


class Lost(Struct, frozen=True):
    """The code was asked for and nobody knows what became of it; it does not count as a try."""

    word: ClassVar[str] = "lost"
    message: str


Outcome = Success | Failure | NotCalled | Gone | Postponed | Doubt | Disconnected | Lost


class Call(Struct, frozen=True):
    """Code with everything it is called with; `timeout` in seconds."""

    code: Code
    context: Context[Any]
    arguments: Mapping[str, Any]
    timeout: float | None

    def __repr__(self) -> str:
        """Without the arguments, which may hold secrets: tracebacks show locals."""
        return f"Call({self.context.key!r})"

    async def __call__(self) -> Outcome:
        """Call it.  Never raises, except when the task is cancelled from outside."""
        limit = Patience(self.timeout, None if self.context.undoing else self.code.step.heartbeat)
        said = Said(self.context.report)
        context = self.context
        if limit.timeout is not None:
            beat = limit.beat if limit.silence else context.beat
            context = replace(context, report=said, beat=beat)
        try:
            if limit.timeout is None:
                value = await self._function()(context, **self.arguments)
            else:
                async with limit.timeout:
                    value = await self._function()(context, **self.arguments)
        except Retry as error:
            return Postponed(str(error), error.after)
        except (CodeLost, CommitFailed) as error:  # the database comes back, and the step is called again
            return Lost(str(error))
        except TimeoutError as error:
            if limit.expired:
                return self._too_late(limit, said.last)
            return self._failure(error)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return self._failure(error)
        except BaseException as error:  # also what would end the process, or the database's writer
            return self._failure(error)
        return Success(None, b"null") if self.context.undoing else self._success(value)

    def _function(self) -> Any:
        return self.code.step.undo_do if self.context.undoing else self.code.step.do

    def _success(self, value: object) -> Outcome:
        """What the successors get is what a restart would read back, so garbage is found now."""
        try:
            stored = msgspec.json.encode(value)
            if len(stored) > LARGEST_RESULT:
                size, most = f"{len(stored):,}", f"{LARGEST_RESULT:,}"
                return Failure(f"returned {size} bytes of JSON, {most} are the most: return a reference")
            return Success(self.code.decode(stored), stored)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            wanted = describe(self.code.returns)
            return Failure(f"returned {type(value).__name__}, which is not {wanted}: {error}")

    def _too_late(self, limit: "Patience", last: str) -> Outcome:
        silent = f"gave no sign of life for {limit.silence:g} s" if limit.silence else ""
        message = silent if limit.went_silent else f"took longer than {self.timeout:g} s"
        message += f": {last}" if last else ""
        if self.code.kind == "at-most-once" and not self.context.undoing:
            return Doubt(f"{message}; whether it had its effect is not known")
        return Failure(message)

    def _failure(self, error: BaseException) -> Failure:
        log.warning(
            "flow.step_failed",
            run=self.context.run,
            step=self.context.step,
            attempt=self.context.attempt,
            undoing=self.context.undoing,
            exc_info=error,
        )
        return Failure(message_of(error))


class Patience:
    """How long a call may take: so many seconds in all, and so many without a sign of life."""

    __slots__ = ("_end", "_home", "_loop", "silence", "timeout")

    def __init__(self, seconds: float | None, silence: float | None) -> None:
        self.timeout: asyncio.Timeout | None = None
        self.silence = silence
        if seconds is None and silence is None:
            return
        self._loop, self._home = asyncio.get_running_loop(), threading.get_ident()
        self._end = math.inf if seconds is None else self._loop.time() + seconds
        self.timeout = asyncio.timeout_at(self._next())

    def beat(self) -> None:
        """A sign of life; steps may have threads of their own."""
        if threading.get_ident() != self._home:
            self._loop.call_soon_threadsafe(self.beat)
        elif self.timeout is not None and not self.timeout.expired():
            with suppress(RuntimeError):  # it is over meanwhile
                self.timeout.reschedule(self._next())

    @property
    def expired(self) -> bool:
        return self.timeout is not None and self.timeout.expired()

    @property
    def went_silent(self) -> bool:
        return self.silence is not None and self._loop.time() < self._end

    def _next(self) -> float:
        return self._end if self.silence is None else min(self._end, self._loop.time() + self.silence)


class Said:
    """Passes on what a step reports, and remembers the last of it: why it took too long."""

    __slots__ = ("_report", "last")

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self.last = ""

    def __call__(self, message: str) -> None:
        self.last = str(message)
        self._report(message)


def message_of(error: BaseException) -> str:
    """What a person is told: the error's own message, never a traceback."""
    try:
        own = getattr(error, "message", None)
        if isinstance(own, str) and own:
            return own
        return str(error.orig if isinstance(error, DBAPIError) else error) or type(error).__name__
    except Exception:  # whoever wrote it got that wrong too
        return type(error).__name__
