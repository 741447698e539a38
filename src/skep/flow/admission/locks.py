"""Locks that runs hold from before their first step until they have ended.

A run asks for all its keys at one instant, so all queues agree on who came first: nobody waits in a circle,
and nobody overtakes on any key.  This serves one process; a table of locks can take its place.
"""

from collections import deque
from collections.abc import Callable, Iterable

from skep.flow.steps import RunId


class Locks:
    """Who holds each key, and who waits for it, in the order of asking."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[RunId]] = {}
        self._keys: dict[RunId, tuple[str, ...]] = {}
        self._missing: dict[RunId, int] = {}
        self._granted: dict[RunId, Callable[[], None]] = {}

    def request(self, run: RunId, keys: Iterable[str], granted: Callable[[], None]) -> None:
        """Call `granted` once the run is first in line for every key; at once if it is already."""
        wanted = tuple(sorted(set(keys)))
        self._keys[run] = wanted
        for key in wanted:
            self._queues.setdefault(key, deque()).append(run)
        self._missing[run] = sum(self._queues[key][0] != run for key in wanted)
        self._granted[run] = granted
        self._grant_if_first(run)

    def release(self, run: RunId) -> None:
        """Give back all keys, or stop waiting for them; the next in line get theirs."""
        self._granted.pop(run, None)
        self._missing.pop(run, None)
        next_in_line = [successor for key in self._keys.pop(run, ()) if (successor := self._leave(run, key))]
        for successor in next_in_line:
            self._missing[successor] -= 1
        for successor in dict.fromkeys(next_in_line):
            self._grant_if_first(successor)

    def holder(self, key: str) -> RunId | None:
        """The run that is first in line for the key."""
        queue = self._queues.get(key)
        return queue[0] if queue else None

    def _leave(self, run: RunId, key: str) -> RunId | None:
        """Take the run out of the queue; answers who became first by that."""
        queue = self._queues[key]
        was_first = queue[0] == run
        queue.remove(run)
        if not queue:
            del self._queues[key]
            return None
        return queue[0] if was_first else None

    def _grant_if_first(self, run: RunId) -> None:
        if self._missing.get(run) == 0 and (granted := self._granted.pop(run, None)):
            granted()
