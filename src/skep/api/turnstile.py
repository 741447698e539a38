"""How often one address may knock at an entrance that needs no user: a bucket of tokens for each."""

import time
from collections import OrderedDict
from collections.abc import Callable

from skep.api.errors import TooMany

BURST = 20
PER_SECOND = 1.0
_REMEMBERED = 10_000
"""Addresses; the one that has been quiet for longest is forgotten first."""


class Turnstile:
    """Lets `BURST` through at once, and `PER_SECOND` after that."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def enter(self, address: str) -> None:
        """Raises TooMany: that was too often."""
        now = self._monotonic()
        left, at = self._buckets.pop(address, (float(BURST), now))
        left = min(float(BURST), left + (now - at) * PER_SECOND)
        self._buckets[address] = (max(0.0, left - 1), now)
        if len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)
        if left < 1:
            raise TooMany
