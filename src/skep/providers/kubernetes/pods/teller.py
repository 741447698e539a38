"""Tells control what was observed, in order, and only the latest of each container."""

import asyncio
from itertools import islice
from typing import Protocol

import structlog

from skep.model.host import ContainerState, ContainerStatus, Health
from skep.model.ids import ContainerId, ReplicaId
from skep.providers.kubernetes.pods.ledger import Entry

_AT_ONCE = 250
"""Containers of which control is told at the same time."""
News = tuple[ContainerId, tuple[ContainerStatus, bool] | None]
"""How a container is, and whether it has ports; None: it was removed."""
_log = structlog.get_logger(__name__)


class Events(Protocol):
    """Control's `ContainerEvents`."""

    async def observed(self, status: ContainerStatus) -> None: ...

    async def removed(self, container: ContainerId) -> None: ...


class Fabric(Protocol):
    """What of control's `Fabric` hears whether names lead to a replica."""

    async def set_resolvable(self, replica: ReplicaId, up: bool) -> None: ...


class Teller:
    def __init__(self, events: Events, fabric: Fabric | None) -> None:
        self._events = events
        self._fabric = fabric
        self._news: dict[ContainerId, tuple[ContainerStatus, bool] | None] = {}
        self._hidden: set[ReplicaId] = set()
        self._some = asyncio.Event()

    def tell(self, status: ContainerStatus, entry: Entry) -> None:
        self._news[status.id] = (status, entry.ports)
        self._some.set()

    def removed(self, container: ContainerId) -> None:
        self._news.pop(container, None)
        self._news[container] = None
        self._some.set()

    async def forever(self) -> None:
        while True:
            await self._some.wait()
            self._some.clear()
            while self._news:
                # Together: their records share a commit, their names a round.
                await asyncio.gather(*map(self._tell_each, self._taken()))

    def _taken(self) -> list[list[News]]:
        """What is to be told now: of each replica in its order."""
        found: dict[str, list[News]] = {}
        for container in tuple(islice(self._news, _AT_ONCE)):
            news = self._news.pop(container)
            found.setdefault(news[0].replica if news else container, []).append((container, news))
        return list(found.values())

    async def _tell_each(self, some: list[News]) -> None:
        for container, news in some:
            await self._tell(container, news)

    async def _tell(self, container: ContainerId, news: tuple[ContainerStatus, bool] | None) -> None:
        try:
            if news is None:
                await self._events.removed(container)
                return
            status, has_ports = news
            if has_ports:
                await self._switch(status)
            await self._events.observed(status)
        except Exception as error:
            _log.warning("container.event-lost", container=container, error=str(error))

    async def _switch(self, status: ContainerStatus) -> None:
        """Names lead to whoever runs, which the fabric sees itself, but not to what fails or is unwell."""
        failing = status.state is ContainerState.RESTARTING or status.health is Health.UNHEALTHY
        if self._fabric is not None and failing is not (status.replica in self._hidden):
            await self._fabric.set_resolvable(status.replica, not failing)
            (self._hidden.add if failing else self._hidden.discard)(status.replica)
