"""Where the hosts of a zone ask and tell: any worker of the zone serves it.

A host is believed about itself alone, and is told what its own replicas need.  Whoever asks over a wire has
signed for it (`bus/signing.py`); within one process there is no other host.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from skep import __version__
from skep.bus.bus import Bus
from skep.bus.methods import Methods
from skep.bus.server import CallServer
from skep.bus.signing import asking
from skep.control.ports import ContainerEvents, SignsOfLife, Supplies
from skep.model.errors import Forbidden, NotFound, Unauthenticated
from skep.model.host import ContainerStatus, HostFacts, PortConfig
from skep.model.ids import ContainerId, HostName, PortId, ZoneName
from skep.model.topology import HostLoad

if TYPE_CHECKING:
    from skep.control.hosts.holdings import Holdings  # agents, who know the key only, have no database

IsKnown = Callable[[HostName, str], Awaitable[bool]]
"""Whether the host's certificate with this serial counts: not once the host was removed."""


def key_of(zone: ZoneName) -> str:
    """The routing key of a zone's workers."""
    return f"worker.{zone}"


class HostDesk:
    """Satisfies `Supplies`, `ContainerEvents` and `SignsOfLife`, for whoever asks: see `asking`."""

    def __init__(
        self,
        supplies: Supplies,
        events: ContainerEvents,
        signs: SignsOfLife,
        holdings: "Holdings",
        is_known: IsKnown,
    ) -> None:
        self._supplies = supplies
        self._events = events
        self._signs = signs
        self._holdings = holdings
        self._is_known = is_known

    async def port(self, port: PortId) -> PortConfig:
        host = await self._host()
        if host is not None and not await self._holdings.has_port(host, port):
            raise NotFound(f"Port {port} is of no replica on host {host!r}.")
        return await self._supplies.port(port)

    async def file(self, digest: str) -> bytes:
        host = await self._host()
        if host is not None and not await self._holdings.has_file(host, digest):
            raise NotFound(f"The config or secret is of no replica on host {host!r}.")
        return await self._supplies.file(digest)

    async def certificate(self, digest: str) -> bytes:
        """Every host serves every endpoint, and so needs what all of them show."""
        await self._host()
        return await self._supplies.certificate(digest)

    async def observed(self, status: ContainerStatus) -> None:
        await self._must_have(status.id)
        await self._events.observed(status)

    async def removed(self, container: ContainerId) -> None:
        await self._must_have(container)
        await self._events.removed(container)

    async def heartbeat(
        self,
        host: HostName,
        *,
        facts: HostFacts | None = None,
        version: str | None = None,
        load: HostLoad | None = None,
    ) -> bool:
        who = await self._host()
        if who not in (None, host):
            raise Forbidden(f"Host {who!r} cannot give signs of life of host {host!r}.")
        return await self._signs.heartbeat(host, facts=facts, version=version, load=load)

    async def _must_have(self, container: ContainerId) -> None:
        host = await self._host()
        if host is not None and not await self._holdings.has_container(host, container):
            raise Forbidden(f"Container {container} is not on host {host!r}.")

    async def _host(self) -> HostName | None:
        """Who asks; None: nobody beyond a wire, or one of a release that does not sign.

        Raises:
            Unauthenticated: its certificate was revoked.
        """
        sender = asking()
        if sender is None or sender.host is None:
            return None
        host = HostName(sender.host)
        if not await self._is_known(host, sender.serial):
            raise Unauthenticated(f"The certificate of host {host!r} was revoked: the host was removed.")
        return host


def zone_desk(
    bus: Bus, zone: ZoneName, supplies: Supplies, events: ContainerEvents, signs: SignsOfLife
) -> AbstractAsyncContextManager[object]:
    """Serve while entered.  Asking and telling twice is harmless, so nothing is kept of it."""
    methods = Methods(__version__)
    methods.add("supplies", Supplies, supplies)
    methods.add("events", ContainerEvents, events)
    methods.add("hosts", SignsOfLife, signs)
    return CallServer(bus, key_of(zone), methods)
