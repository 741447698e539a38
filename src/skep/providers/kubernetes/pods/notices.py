"""What is told of the containers of one carrier: to control, and to those who wait here."""

import asyncio
from collections.abc import Callable

from skep.model.host import ContainerStatus
from skep.model.ids import ContainerId
from skep.providers.kubernetes.pods.ledger import Entry
from skep.providers.kubernetes.pods.roster import Roster
from skep.providers.kubernetes.pods.timers import Timers

_A_BIT = 0.01
"""Seconds by which a clock is let pass what it waits for."""


class Notices:
    """`tell` is called with every status that is not as the one before."""

    def __init__(
        self, roster: Roster, timers: Timers, tell: Callable[[ContainerStatus, Entry], None]
    ) -> None:
        self._roster = roster
        self._timers = timers
        self._tell = tell
        self._told: dict[ContainerId, ContainerStatus] = {}
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}

    def look(self, container: ContainerId) -> None:
        """Something of it may have changed; what changes by itself is looked at in time."""
        if not self._roster.has(container):
            return
        status = self._roster.status(container)
        if (seconds := self._roster.well_for(container)) is not None:
            self._timers.set(container, "unwell", seconds + _A_BIT, lambda: self.look(container))
        if self._told.get(container) != status:
            self._told[container] = status
            self._tell(status, self._roster.entry(container))
        self._wake(container)

    def pod_changed(self, pod: str) -> None:
        """Or went."""
        self._wake(pod)

    def removed(self, container: ContainerId) -> None:
        self._told.pop(container, None)
        self._wake(container)

    async def until(self, container: ContainerId, holds: Callable[[], bool]) -> None:
        """Return once it holds, or the container is removed."""
        while self._roster.has(container) and not holds():
            await self._change(container)

    async def pod_ended(self, pod: str) -> None:
        """Return once it is gone; one whose node is lost is not waited for."""
        while pod in self._roster.pods and not self._roster.silence(pod):
            await self._change(pod)

    async def _change(self, name: str) -> None:
        """Of a container or a pod."""
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, set()).add(waiting)
        try:
            await waiting
        finally:
            self._waiting.get(name, set()).discard(waiting)

    def _wake(self, name: str) -> None:
        for waiting in self._waiting.pop(name, ()):
            if not waiting.done():
                waiting.set_result(None)
