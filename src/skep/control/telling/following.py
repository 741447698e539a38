"""What changes is seen to in the background: what changes meanwhile is seen to together, next."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from skep.model.ids import ReplicaId

log = structlog.get_logger("skep.following")


class Following:
    """Calls `see_to` with the replicas that changed since it was called last, one call at a time."""

    def __init__(self, subject: str, see_to: Callable[[set[ReplicaId]], Awaitable[None]]) -> None:
        self._subject = subject
        self._see_to = see_to
        self._changed: set[ReplicaId] = set()
        self._task: asyncio.Task[None] | None = None

    def changed(self, replica: ReplicaId) -> None:
        """Never waits."""
        self._changed.add(replica)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._follow(), name=self._subject)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        while self._changed:
            taken, self._changed = self._changed, set()
            try:
                await self._see_to(taken)
            except Exception:
                log.exception(f"{self._subject}.failed")
