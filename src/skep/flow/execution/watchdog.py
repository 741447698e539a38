"""Finds code that blocks the event loop: while it does, nothing else in the process moves."""

import asyncio
import os
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
GROWTH = 256 * 1024 * 1024
"""Bytes by which the process may grow before it is said which steps were under way."""
_LOOK = 0.25
_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Bytes of memory that this process has now."""
    with open("/proc/self/statm") as file:  # noqa: PTH123  (four times a second: no detour)
        return int(file.read().split()[1]) * _PAGE


class Watchdog:
    """A thread that looks whether the loop turns.  `blocked(task, where, seconds)` is called in the loop
    as soon as it turns again; so is `grown(bytes)` each time the process has become so much larger."""

    def __init__(
        self,
        blocked: Callable[[str, str, float], None],
        grown: Callable[[int], None],
        after: float = BLOCKED,
    ) -> None:
        self._blocked = blocked
        self._grown = grown
        self._memory = resident()
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
            self._look_at_memory()
            if self._turned >= self._pinged:
                self._pinged = time.monotonic()
                with suppress(RuntimeError):  # the loop is closed
                    self._loop.call_soon_threadsafe(self._turn)
            elif time.monotonic() - self._pinged > self._after:
                self._report()

    def _look_at_memory(self) -> None:
        grown = resident() - self._memory
        if grown > GROWTH:
            self._memory += grown
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._grown, grown)

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
