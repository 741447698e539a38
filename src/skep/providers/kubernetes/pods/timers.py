"""What is to be done for a container after a while, unless something is ordered before."""

import asyncio
from collections.abc import Callable

from skep.model.ids import ContainerId


class Timers:
    """At most one of each kind for a container."""

    def __init__(self) -> None:
        self._running: dict[ContainerId, dict[str, asyncio.TimerHandle]] = {}

    def set(self, container: ContainerId, kind: str, seconds: float, call: Callable[[], object]) -> None:
        """In place of the one before."""
        running = self._running.setdefault(container, {})
        if before := running.get(kind):
            before.cancel()
        running[kind] = asyncio.get_running_loop().call_later(seconds, call)

    def forget(self, container: ContainerId) -> None:
        for timer in self._running.pop(container, {}).values():
            timer.cancel()

    def close(self) -> None:
        for container in list(self._running):
            self.forget(container)
