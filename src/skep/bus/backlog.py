"""Events kept for one listener: who cannot keep up loses the oldest, and stops nobody."""

from asyncio import Event as Signal
from collections import deque
from collections.abc import AsyncIterator

from skep.bus.bus import Event

WAITING = 1000
"""Events kept for one slow listener."""


class Backlog:
    def __init__(self) -> None:
        self._events: deque[Event] = deque(maxlen=WAITING)
        self._some = Signal()

    def put(self, event: Event) -> None:
        """Never waits, never fails."""
        self._events.append(event)
        self._some.set()

    async def take(self) -> Event:
        """The oldest, once there is one."""
        while not self._events:
            self._some.clear()
            await self._some.wait()
        return self._events.popleft()

    async def drain(self) -> AsyncIterator[Event]:
        while True:
            yield await self.take()
