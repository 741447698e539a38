"""Finds code that blocks the event loop: while it does, nothing else in the process moves."""

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress

import structlog

log = structlog.get_logger(__name__)

BLOCKED = 1.0
"""Seconds without a turn of the loop."""
_LOOK = 0.25


class Watchdog:
    """A thread that looks whether the loop turns.  `blocked(task, where, seconds)` is called in the loop
    as soon as it turns again."""

    def __init__(self, blocked: Callable[[str, str, float], None], after: float = BLOCKED) -> None:
        self._blocked = blocked
        self._after = after
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._pinged = self._turned = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="flow-watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()

    def _turn(self) -> None:
        self._turned = time.monotonic()

    def _watch(self) -> None:
        """The thread asks the loop to turn, not a timer of the loop: virtual time need not pass for it."""
        while not self._stop.wait(_LOOK):
            if self._turned >= self._pinged:
                self._pinged = time.monotonic()
                with suppress(RuntimeError):  # the loop is closed
                    self._loop.call_soon_threadsafe(self._turn)
            elif time.monotonic() - self._pinged > self._after:
                self._report()

    def _report(self) -> None:
        """Say it at once, for it may last; the loop hears of it before the step's end."""
        task = asyncio.current_task(self._loop)
        name = task.get_name() if task is not None else ""
        frame = sys._current_frames().get(self._thread_id)
        where = traceback.format_stack(frame)[-1].strip().replace("\n", " ") if frame else ""
        seconds = time.monotonic() - self._pinged
        log.error("flow.loop_blocked", step=name, where=where)
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._blocked, name, where, seconds)
        while self._turned < self._pinged and not self._stop.wait(_LOOK / 5):
            pass
