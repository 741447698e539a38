"""Processes that are not our children, held by pidfd so that a reused pid is never mistaken for them."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path


def read_pid(file: Path) -> int | None:
    """The pid a pid file holds; None when there is none (yet)."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def hold(pid: int, is_it: Callable[[int], bool]) -> int | None:
    """A pidfd of the process, or None when it is gone or is not the one meant.

    `is_it` is asked after the process is held: from then on its pid cannot pass to another one.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return None
    if is_it(pid):
        return descriptor
    os.close(descriptor)
    return None


def has_argument(pid: int, argument: str) -> bool:
    """Whether the process was started with this argument; a zombie has none left."""
    try:
        return argument.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def send(descriptor: int, number: signal.Signals) -> bool:
    """Send a signal; False when the process is gone."""
    try:
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    return True


class ExitWatch:
    """Calls back once, on the event loop, when a held process ends.  Costs one descriptor, no thread."""

    def __init__(self, descriptor: int, ended: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._fire)

    def close(self) -> None:
        """Forget the process.  May be repeated."""
        if self._descriptor < 0:
            return
        self._loop.remove_reader(self._descriptor)
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
        self._descriptor = -1

    def _fire(self) -> None:
        self.close()
        self._ended()
