"""One call of a step's code, or of its undo, and what came of it.  Knows nothing of graphs and journals."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog
from sqlalchemy.exc import DBAPIError

from skep.flow.definition.catalogue import Code
from skep.flow.definition.hints import describe
from skep.flow.steps import Context, Retry

log = structlog.get_logger(__name__)

TRANSACTION_TIMEOUT = 30.0
"""Seconds a transactional step may take if nothing is said: while it runs nobody else can commit."""
UNDO_TIMEOUT = 300.0


@dataclass(frozen=True, slots=True)
class Success:
    value: Any
    stored: bytes
    """The value as JSON."""


@dataclass(frozen=True, slots=True)
class Failure:
    message: str


@dataclass(frozen=True, slots=True)
class NotCalled:
    """There was nobody to call, or nothing to call it with: the code did not run."""

    message: str


@dataclass(frozen=True, slots=True)
class Postponed:
    """The step raised `Retry`."""

    message: str
    after: float | None


@dataclass(frozen=True, slots=True)
class Doubt:
    """An at-most-once step that may have had its effect."""

    message: str


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The database did not take the transaction; nothing happened, and it does not count as a try."""

    message: str


Outcome = Success | Failure | NotCalled | Postponed | Doubt | Disconnected


@dataclass(frozen=True, slots=True)
class Call:
    """Code with everything it is called with; `timeout` in seconds."""

    code: Code
    context: Context[Any]
    arguments: Mapping[str, Any] = field(repr=False)  # may hold secrets, and tracebacks show locals
    timeout: float | None

    async def __call__(self) -> Outcome:
        """Call it.  Never raises, except when the task is cancelled from outside."""
        limit = asyncio.timeout(self.timeout)
        try:
            async with limit:
                value = await self._function()(self.context, **self.arguments)
        except Retry as error:
            return Postponed(str(error), error.after)
        except TimeoutError as error:
            if limit.expired():
                return self._too_late()
            return self._failure(error)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return self._failure(error)
        except Exception as error:
            return self._failure(error)
        return Success(None, b"null") if self.context.undoing else self._success(value)

    def _function(self) -> Any:
        return self.code.step.undo_do if self.context.undoing else self.code.step.do

    def _success(self, value: object) -> Outcome:
        """What the successors get is what a restart would read back, so garbage is found now."""
        try:
            stored = msgspec.json.encode(value)
            return Success(self.code.decode(stored), stored)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            wanted = describe(self.code.returns)
            return Failure(f"returned {type(value).__name__}, which is not {wanted}: {error}")

    def _too_late(self) -> Outcome:
        message = f"took longer than {self.timeout:g} s"
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


def message_of(error: BaseException) -> str:
    """What a person is told: the error's own message, never a traceback."""
    own = getattr(error, "message", None)
    if isinstance(own, str) and own:
        return own
    if isinstance(error, DBAPIError):
        return str(error.orig)
    return str(error) or type(error).__name__
