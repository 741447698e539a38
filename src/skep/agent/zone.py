"""What an agent asks and tells control, over the bus to whichever worker of its zone answers first."""

import asyncio
from types import TracebackType
from typing import Self

import structlog

from skep.bus.client import CallClient, Pace
from skep.control.hosts.zone_desk import key_of
from skep.model.errors import SkepError, Unavailable
from skep.model.host import ContainerStatus, HostFacts, PortConfig
from skep.model.ids import ContainerId, HostName, PortId, ZoneName
from skep.model.topology import HostLoad

PACE = Pace(patience=120.0)
"""A container that is being started waits longer for control than somebody who looks on."""
_AT_ONCE = 8
_REST = 1.0
"""Seconds before what could not be told is tried again."""

log = structlog.get_logger(__name__)


class ZoneSupplies:
    """Satisfies `Supplies`: contents of files, addresses of ports, certificates."""

    def __init__(self, calls: CallClient, zone: ZoneName) -> None:
        self._calls = calls
        self._key = key_of(zone)

    async def port(self, port: PortId) -> PortConfig:
        return await self._calls.ask(self._key, "supplies.port", PortConfig, {"port": port})

    async def file(self, digest: str) -> bytes:
        return await self._calls.ask(self._key, "supplies.file", bytes, {"digest": digest})

    async def certificate(self, digest: str) -> bytes:
        return await self._calls.ask(self._key, "supplies.certificate", bytes, {"digest": digest})


class ZoneSigns:
    """Satisfies `SignsOfLife`."""

    def __init__(self, calls: CallClient, zone: ZoneName) -> None:
        self._calls = calls
        self._key = key_of(zone)

    async def heartbeat(
        self,
        host: HostName,
        *,
        facts: HostFacts | None = None,
        version: str | None = None,
        load: HostLoad | None = None,
    ) -> bool:
        said = {"host": host, "facts": facts, "version": version, "load": load}
        return await self._calls.ask(self._key, "hosts.heartbeat", bool, said)


class ZoneEvents:
    """Satisfies `ContainerEvents`: never waits, tells control as soon as somebody listens.

    Of each container the latest news is kept until it has arrived, so an outage of any length costs as much
    memory as there are containers.  News of one container arrive in their order.
    """

    def __init__(self, calls: CallClient, zone: ZoneName) -> None:
        self._calls = calls
        self._key = key_of(zone)
        self._news: dict[ContainerId, ContainerStatus | None] = {}
        """None: it was removed."""
        self._telling: set[ContainerId] = set()
        self._changed = asyncio.Condition()
        self._tellers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tellers = [asyncio.create_task(self._tell_forever()) for _ in range(_AT_ONCE)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What was not told is found by the reconcilers."""
        for teller in self._tellers:
            teller.cancel()
        await asyncio.wait(self._tellers)

    async def observed(self, status: ContainerStatus) -> None:
        await self._note(status.id, status)

    async def removed(self, container: ContainerId) -> None:
        await self._note(container, None)

    async def _note(self, container: ContainerId, news: ContainerStatus | None) -> None:
        async with self._changed:
            self._news.pop(container, None)
            self._news[container] = news
            self._changed.notify()

    async def _tell_forever(self) -> None:
        while True:
            async with self._changed:
                while (container := self._due()) is None:
                    await self._changed.wait()
                news = self._news.pop(container)
                self._telling.add(container)
            try:
                await self._tell(container, news)
            finally:
                self._telling.discard(container)
            async with self._changed:
                self._changed.notify()

    def _due(self) -> ContainerId | None:
        return next((container for container in self._news if container not in self._telling), None)

    async def _tell(self, container: ContainerId, news: ContainerStatus | None) -> None:
        try:
            if news is None:
                arguments = {"container": container}
                await self._calls.tell(self._key, "events.removed", type(None), arguments)
            else:
                await self._calls.tell(self._key, "events.observed", type(None), {"status": news})
        except Unavailable as error:
            log.info("news.waiting", container=container, error=error.message)
            self._news.setdefault(container, news)
            await asyncio.sleep(_REST)
        except SkepError as error:  # the reconcilers look for themselves
            log.warning("news.refused", container=container, error=error.message)
