"""What a process of control has with hosts elsewhere: it calls them, knows who is there, and answers them."""

import asyncio
import socket
import time
from contextlib import AsyncExitStack
from functools import partial

import structlog

from skep.bus.bus import Bus
from skep.bus.client import CallClient
from skep.bus.signing import SignedBus
from skep.control.hosts.holdings import Holdings
from skep.control.hosts.host_finding import HostFinder
from skep.control.hosts.zone_desk import HostDesk, zone_desk
from skep.control.ports import Host
from skep.flow import CommitFailed
from skep.main.background import background
from skep.main.plane import Foundation, authorities, heartbeats
from skep.model.errors import SkepError
from skep.model.ids import ZoneName
from skep.providers.remote.host import RemoteHost
from skep.providers.remote.streams import HostStreams
from skep.store import hosts
from skep.store.hosts import HostRow
from skep.trust.contexts import Expectation
from skep.trust.identity import Identity
from skep.trust.peers import Role
from skep.trust.signatures import Signatures

log = structlog.get_logger("skep")

_LOOK = 2.0
"""Seconds between two looks for new zones."""
_REST = 60.0
"""Seconds between two attempts to renew a certificate."""


async def know_hosts(stack: AsyncExitStack, base: Foundation, role: Role) -> Bus:
    """Put the hosts elsewhere into the directory, and keep it so.

    Answers the bus as it is spoken with hosts: all that is said is signed.
    """
    identity = await _identity(base, role)
    await stack.enter_async_context(background(_renew(base, role, identity), "identity"))
    bus = SignedBus(base.bus, Signatures(identity), required=base.settings.signatures == "required")
    calls = await stack.enter_async_context(CallClient(bus, base.process))
    finder = HostFinder(
        base.database,
        base.directory,
        partial(_connect, calls, identity),
        lambda host: calls.give_up(f"agent.{host}"),
    )
    await finder.look()
    await stack.enter_async_context(background(finder.run(), "host-finder"))
    return bus


async def answer_hosts(stack: AsyncExitStack, base: Foundation, bus: Bus) -> None:
    """Serve the desks of all zones, also of those that come later; `bus` as `know_hosts` answered it."""
    await stack.enter_async_context(background(_serve_zones(base, bus), "zone-desks"))


async def _identity(base: Foundation, role: Role) -> Identity:
    directory = base.settings.data / "identity"
    return await authorities(base).identity(directory, role, socket.gethostname())


async def _renew(base: Foundation, role: Role, identity: Identity) -> None:
    """In time, and again and again if it cannot be had."""
    while True:
        await asyncio.sleep(max(_REST, identity.renewal - time.time()))
        try:
            await _identity(base, role)
            identity.refresh()
        except (SkepError, CommitFailed) as error:
            log.warning("identity.not-renewed", error=error.message)


def _connect(calls: CallClient, identity: Identity, row: HostRow) -> Host:
    tls = identity.client_context(Expectation(Role.AGENT, row.name))
    return RemoteHost.make(row.name, row.facts, calls, HostStreams(row.address, tls))


async def _zones(base: Foundation) -> set[ZoneName]:
    """None while the database does not answer: those that are served stay so."""
    try:
        async with base.database.read() as connection:
            return {row.name for row in await hosts.every_zone(connection)}
    except CommitFailed as error:
        log.warning("zones.unknown", error=str(error))
        return set()


async def _serve_zones(base: Foundation, bus: Bus) -> None:
    served: set[ZoneName] = set()
    desk = HostDesk(
        base.desired,
        base.observations,
        heartbeats(base),
        Holdings(base.database, base.desired),
        authorities(base).is_known,
    )
    async with AsyncExitStack() as desks:
        while True:
            for zone in await _zones(base) - served:
                await desks.enter_async_context(zone_desk(bus, zone, desk, desk, desk))
                served.add(zone)
            await asyncio.sleep(_LOOK)
