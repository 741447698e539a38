"""How long to wait before asking a cluster again.  Everybody who asks a cluster waits like this."""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from skep.providers.kubernetes.client import refusals

_FIRST, _LONGEST, _AS_ASKED = 0.2, 10.0, 30.0
_SLOWEST = 30.0
SOON = (0.1, 0.3, 1.0, 3.0)
"""Seconds until a cluster has heard of what was made there a moment ago."""
T = TypeVar("T")


class Brake:
    """For what somebody undoes again and again: it is done at once, then more and more slowly."""

    def __init__(self) -> None:
        self._last, self._pause = -math.inf, 0.0

    def pause(self, now: float) -> float:
        """Seconds to wait before it is done again."""
        soon = now - self._last < 2 * _SLOWEST
        self._last, self._pause = now, min(_SLOWEST, max(_FIRST, 2 * self._pause)) if soon else 0.0
        return self._pause


def delay(failures: int, error: Exception, chance: float, now: float) -> float:
    """Seconds: what the cluster asks for, else doubling, spread so that not all come back together.

    `chance` is from 0 to 1.
    """
    asked = refusals.pause(error, now)
    own = min(_LONGEST, _FIRST * 2 ** min(failures, 10))
    return (own if asked is None else min(_AS_ASKED, asked)) * (1 + chance / 4)


async def patiently(ask: Callable[[], Awaitable[T]], patience: float) -> T:
    """The answer, asked for again after what passes by itself, for as many seconds; then its last error."""
    end, failures = time.monotonic() + patience, 0
    while True:
        try:
            return await ask()
        except Exception as error:
            pause = delay(failures, error, random.random(), time.time())  # noqa: S311 - no secret
            if not refusals.passes(error) or time.monotonic() + pause > end:
                raise
            failures += 1
        await asyncio.sleep(pause)
