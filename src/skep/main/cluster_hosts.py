"""The clusters that zones stand on, each led by one process of control as if it were that host's agent.

In an installation of one process control reaches them directly.  Where workers share a database, the one with
the lease of a cluster leads it, and serves it on the bus as `agent.<host>`: nobody else knows the difference.
"""

import asyncio
import socket
import time
from contextlib import AsyncExitStack, suppress
from functools import partial
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog

from skep import __version__
from skep.agent.service import served_host
from skep.agent.streams import build_streams, served_streams
from skep.bus.signing import SignedBus
from skep.control.hosts.cluster_zones import open_access
from skep.control.leadership import Leadership
from skep.flow import CommitFailed
from skep.main.background import background
from skep.main.led_host import LedHost
from skep.main.plane import Foundation, authorities, heartbeats
from skep.model.clusters import ClusterOffers
from skep.model.errors import SkepError
from skep.model.host import HostFacts
from skep.model.ids import Bytes, ClusterId
from skep.model.topology import PER_TIMEOUT
from skep.store import clusters, hosts
from skep.store.clusters import ClusterRow
from skep.trust.contexts import Expectation
from skep.trust.identity import Identity
from skep.trust.peers import Role
from skep.trust.signatures import Signatures

if TYPE_CHECKING:
    from skep.providers.kubernetes.host import ClusterHost

log = structlog.get_logger("skep.clusters")

LOOK = 2.0
"""Seconds between two looks for clusters that came, changed or went."""
REST = 5.0
"""Seconds before a cluster that cannot be led is tried again."""
_RENEW = 60.0
_LOOK_ANEW = 60.0
"""Seconds between two looks at what a cluster offers: disks, ways for requests into it, addresses."""
NO_FACTS = HostFacts(cpus=0, memory=Bytes(0), kernel="", cgroups="unknown", boot_id="")


class ClusterHosts:
    """Leads every cluster of the installation that it may, while it runs."""

    def __init__(self, base: Foundation) -> None:
        self._base = base
        self._led: dict[ClusterId, tuple[ClusterRow, asyncio.Task[None]]] = {}
        self._standing: dict[ClusterId, LedHost] = {}
        """In the directory of this process, where it reaches clusters itself."""

    async def run(self) -> None:
        """Until cancelled.  What runs in the clusters goes on."""
        try:
            while True:
                with suppress(CommitFailed):  # as long as the database is away all stays as it is
                    await self.look()
                await asyncio.sleep(LOOK)
        finally:
            await self._leave(list(self._led))

    async def look(self) -> None:
        async with self._base.database.read() as connection:
            there = {row.id: row for row in await clusters.every(connection)}
        before = {key: row for key, (row, _) in self._led.items()}
        await self._leave([key for key, row in before.items() if _way(there.get(key)) != _way(row)])
        for key in self._standing.keys() - there.keys():
            self._base.directory.remove(before[key].host)
            del self._standing[key]
        for key in there.keys() - self._led.keys():
            row = there[key]
            if not self._base.shared:
                self._in_directory(row)
            self._led[key] = (row, asyncio.create_task(self._lead(row), name=f"cluster-{row.zone}"))

    async def _leave(self, gone: list[ClusterId]) -> None:
        for key in gone:
            row, task = self._led.pop(key)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            log.info("cluster.not-led-any-more", zone=row.zone)

    def _in_directory(self, row: ClusterRow) -> None:
        """From the first look on, so that nothing fails because its cluster is not led yet."""
        if row.id not in self._standing:
            self._standing[row.id] = LedHost(row.host, NO_FACTS)
            self._base.directory.add(row.host, self._standing[row.id])

    async def _lead(self, row: ClusterRow) -> None:
        """Again and again: a cluster may be away, or a token be replaced there."""
        while True:
            try:
                if self._base.shared:
                    leadership = Leadership(self._base.database, f"cluster/{row.id}", self._base.process)
                    await leadership.run(lambda _epoch: self._serve_on_bus(row))
                else:
                    await self._serve(row)
            except (SkepError, CommitFailed) as error:
                log.warning("cluster.not-led", zone=row.zone, error=error.message)
                if (standing := self._standing.get(row.id)) is not None:
                    standing.leave(error.message)
            except Exception as error:
                log.error("cluster.failed", zone=row.zone, exc_info=error)
            await asyncio.sleep(REST)

    async def _serve(self, row: ClusterRow) -> None:
        """In this process."""
        async with AsyncExitStack() as stack:
            host, standing = await self._host(stack, row), self._standing[row.id]
            standing.lead(host)
            stack.callback(standing.leave)
            log.info("cluster.led", zone=row.zone, server=row.server)
            await self._beat(row, host)

    async def _serve_on_bus(self, row: ClusterRow) -> None:
        """For all processes, this one too."""
        base, folder = self._base, self._folder(row)
        async with AsyncExitStack() as stack:
            host = await self._host(stack, row)
            listener = stack.enter_context(socket.socket(socket.AF_INET))
            listener.bind((str(own_address(base)), 0))
            address, port = listener.getsockname()[:2]
            identity = await self._identity(row, address)
            await stack.enter_async_context(background(self._renew(row, address, identity), "identity"))
            tls = identity.server_context(Expectation(Role.SERVE), Expectation(Role.WORKER))
            await stack.enter_async_context(served_streams(build_streams(host, folder), listener, tls))
            bus = SignedBus(base.bus, Signatures(identity), required=base.settings.signatures == "required")
            await stack.enter_async_context(served_host(bus, row.host, host, folder / "receipts.db"))
            place = partial(hosts.set_address, host=row.host, address=f"{address}:{port}")
            await base.database.write(place)
            log.info("cluster.led", zone=row.zone, server=row.server, address=f"{address}:{port}")
            await self._beat(row, host)

    async def _host(self, stack: AsyncExitStack, row: ClusterRow) -> "ClusterHost":
        from skep.providers.kubernetes.host import cluster_host  # its client is loaded where there is one

        base, folder = self._base, self._folder(row)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return await cluster_host(
            stack,
            open_access(base.settings.seal, row),
            folder=folder,
            supplies=base.desired,
            events=base.observations.unfollowed(),
            insecure=base.settings.insecure_registries,
        )

    async def _beat(self, row: ClusterRow, host: "ClusterHost") -> None:
        """Signs of life while its API server answers; ends once the host is no more."""
        signs, looked = heartbeats(self._base), 0.0
        while True:
            try:
                load = await host.measure()
                if not await signs.heartbeat(row.host, facts=host.facts, version=__version__, load=load):
                    return
            except (SkepError, CommitFailed) as error:
                log.warning("cluster.silent", zone=row.zone, error=error.message)
            if time.monotonic() - looked > _LOOK_ANEW:
                await self._note(row, host)
                looked = time.monotonic()
            await asyncio.sleep(self._base.settings.silence / PER_TIMEOUT)

    async def _note(self, row: ClusterRow, host: "ClusterHost") -> None:
        """What apps cannot have there, if it is not what it was."""
        try:
            known = ClusterOffers(lacks=frozenset(row.lacks), ranges=row.ranges)
            now = await host.changed(known)
            if now is not None:
                log.info("cluster.offers-changed", zone=row.zone, lacks=sorted(now.lacks), ranges=now.ranges)
                await self._base.database.write(partial(clusters.set_offers, cluster=row.id, offers=now))
        except (SkepError, CommitFailed) as error:
            log.warning("cluster.offers-unknown", zone=row.zone, error=error.message)

    async def _identity(self, row: ClusterRow, address: str) -> Identity:
        """As that of a host which has joined, of this process's own."""
        return await authorities(self._base).identity(
            self._folder(row) / "identity", Role.AGENT, row.host, addresses=[ip_address(address)]
        )

    async def _renew(self, row: ClusterRow, address: str, identity: Identity) -> None:
        while True:
            await asyncio.sleep(max(_RENEW, identity.renewal - time.time()))
            try:
                await self._identity(row, address)
                identity.refresh()
            except (SkepError, CommitFailed) as error:
                log.warning("identity.not-renewed", host=row.host, error=error.message)

    def _folder(self, row: ClusterRow) -> Path:
        return self._base.settings.data / "clusters" / row.id


async def lead_clusters(stack: AsyncExitStack, base: Foundation) -> None:
    """Until the stack is closed; those that are there already are in the directory from now on."""
    led = ClusterHosts(base)
    await led.look()
    await stack.enter_async_context(background(led.run(), "clusters"))


def own_address(base: Foundation) -> IPv4Address:
    """Where other processes of control reach this one: as the broker does, unless a setting says."""
    if base.settings.underlay is not None:
        return base.settings.underlay
    broker = urlsplit(base.settings.bus)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((broker.hostname or "127.0.0.1", broker.port or 5672))
        return IPv4Address(probe.getsockname()[0])


def _way(row: ClusterRow | None) -> int | None:
    """What changes when it is to be reached otherwise; None: it is gone."""
    return None if row is None else row.generation
