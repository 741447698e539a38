"""What a process has heard already, so that nobody says it again in another's place.

A message is known by its sender, the queue, the time at which it was signed and its id: who asks again signs
anew.  Of each sender on a queue the youngest are remembered, and what is older than all of them is refused.
"""

import heapq
from dataclasses import dataclass, field

from skep.bus.bus import Sender

REMEMBERED = 4096
"""Messages of a sender on a queue: more than can pass one on its way."""
SENDERS = 65_536


@dataclass(slots=True)
class _Window:
    """`floor`: what was signed then or earlier may have been forgotten."""

    heard: set[tuple[float, str]] = field(default_factory=set)
    order: list[tuple[float, str]] = field(default_factory=list)
    floor: float = 0.0

    def forget(self) -> None:
        oldest = heapq.heappop(self.order)
        self.heard.discard(oldest)
        self.floor = max(self.floor, oldest[0])


class Replays:
    """`remembered`: see REMEMBERED."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._windows: dict[tuple[str, str | None, str], _Window] = {}

    def knows(self, key: str, sender: Sender, at: float, message: str) -> bool:
        window = self._windows.get((sender.name, sender.host, key))
        return window is not None and (at <= window.floor or (at, message) in window.heard)

    def note(self, key: str, sender: Sender, at: float, message: str, since: float) -> None:
        """It was heard, and what was signed before `since` is refused for its age."""
        window = self._window((sender.name, sender.host, key))
        if (at, message) not in window.heard:
            window.heard.add((at, message))
            heapq.heappush(window.order, (at, message))
        while window.order and (window.order[0][0] < since or len(window.order) > self._remembered):
            window.forget()

    def _window(self, name: tuple[str, str | None, str]) -> _Window:
        """That of who spoke is the last to go."""
        window = self._windows.pop(name, None) or _Window()
        if len(self._windows) >= SENDERS:
            del self._windows[next(iter(self._windows))]
        self._windows[name] = window
        return window
