"""Not trying the impossible all the time: each key waits longer after each attempt."""

from collections.abc import Callable, Collection

FIRST = 1.0
LONGEST = 120.0
"""Seconds."""


class Backoff:
    """`monotonic` is a clock that never jumps, in seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._next: dict[str, tuple[int, float]] = {}

    def ready(self, key: str) -> bool:
        return key not in self._next or self._monotonic() >= self._next[key][1]

    def attempted(self, key: str) -> None:
        """The next attempt has to wait: 1 s, 2 s, 4 s, … at most two minutes."""
        count = self._next[key][0] + 1 if key in self._next else 0
        self._next[key] = (count, self._monotonic() + min(LONGEST, FIRST * 2 ** min(count, 16)))

    def keep_only(self, keys: Collection[str]) -> None:
        """Forget those that need no attempt any more: they are well again."""
        self._next = {key: value for key, value in self._next.items() if key in keys}
