"""How late the event loop is with its timers: whatever blocks it makes everything late."""

import asyncio

from skep.flow.monitoring.latency import Latency

PERIOD = 1.0
"""Seconds between two looks."""


class LoopLag:
    """Looks from `start` to `stop`; what it has seen is in `lag`."""

    def __init__(self) -> None:
        self.lag = Latency()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Within the loop that is to be watched."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(loop.time() + PERIOD, self._look, loop, loop.time() + PERIOD)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self.lag.add(max(0.0, loop.time() - due))
        self.start()
