"""What may be watched: metrics and traces are observers.  They are called in the hot path: be quick."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol

import structlog

from skep.flow.runs import RunRow

log = structlog.get_logger(__name__)


class Observer(Protocol):
    """Called as things happen in this process; an error in it is logged and changes nothing."""

    def run_started(self, run: RunRow) -> None:
        """The run holds its locks and begins, or goes on after it was adopted (`run.epoch` > 1)."""

    def run_ended(self, run: RunRow) -> None:
        """Its end is durable."""

    def step_admitted(self, priority: int, seconds: float) -> None:
        """A step that could not go at once may go after it was queued for so long."""

    def step_started(self, run: RunRow, step: str, code: str) -> None:
        """An attempt begins; an undo has the code `undo:<code>`."""

    def step_ended(self, run: RunRow, step: str, code: str, outcome: str, seconds: float) -> None:
        """An attempt ended after so many seconds; outcome: succeeded, failed, postponed, lost, in-doubt."""


class Guarded:
    """An observer whose errors stay its own."""

    def __init__(self, observer: Observer) -> None:
        self.run_started = _guarded(observer.run_started)
        self.run_ended = _guarded(observer.run_ended)
        self.step_admitted = _guarded(observer.step_admitted)
        self.step_started = _guarded(observer.step_started)
        self.step_ended = _guarded(observer.step_ended)


def _guarded(told: Callable[..., None]) -> Callable[..., None]:
    @wraps(told)
    def tell(*what: Any) -> None:
        try:
            told(*what)
        except Exception:
            log.exception("flow.observer_failed")

    return tell
