"""`skep agent`: the containers, networks and disks of this machine, at the command of control elsewhere.

The machine must have joined (`skep agent join`): from then on the directory `agent` in `etc` says which host
it is, where the bus is, and what it proves itself with.
"""

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from ipaddress import IPv4Address

import structlog

from skep.agent.joined import JoinedHost, agent_directory, forget_joined, read_joined
from skep.agent.membership import Membership
from skep.agent.renewal import belongs, keep_renewed
from skep.agent.service import served_host
from skep.agent.streams import build_streams, served_streams
from skep.agent.zone import PACE, ZoneEvents, ZoneSigns, ZoneSupplies
from skep.bus.client import CallClient
from skep.bus.opening import open_bus
from skep.bus.signing import SignedBus
from skep.configuration import Configuration
from skep.main.background import background
from skep.main.heartbeat import send_heartbeats
from skep.main.local_host import local_host
from skep.main.process import alone, collect_garbage_seldom, stopped
from skep.main.teardown import tear_down
from skep.model.errors import InvalidInput
from skep.model.ids import new_id
from skep.model.topology import PER_TIMEOUT
from skep.providers.local.programs import require_programs
from skep.trust.contexts import Expectation
from skep.trust.identity import Identity
from skep.trust.peers import Role
from skep.trust.signatures import Signatures

log = structlog.get_logger("skep")


async def run(settings: Configuration) -> None:
    """Serve control until SIGTERM or SIGINT.  Containers go on, and are adopted by the next agent.

    Raises:
        NotFound: the installation has removed this host.  Its containers and networks are gone by then, since
            others may have their addresses; its disks stay.
    """
    collect_garbage_seldom()
    directory = agent_directory(settings.etc)
    member, identity = read_joined(directory), Identity(directory)
    stop = stopped()
    require_programs()
    with alone(settings):
        removed = await _until_removed(settings, member, identity, stop)
    if removed:
        log.warning("host.removed", host=member.host)
        await tear_down(settings, purge=False)
        forget_joined(directory)
        read_joined(directory)
    log.info("skep.ended")


async def _until_removed(
    settings: Configuration, member: JoinedHost, identity: Identity, stop: asyncio.Event
) -> bool:
    """True: it was removed; False: it is to stop."""
    if not await belongs(identity, member):
        return True
    async with AsyncExitStack() as stack:
        membership = Membership(identity, member, settings.silence)
        await stack.enter_async_context(background(membership.watch(), "membership"))
        await _serve(stack, settings, member, identity, membership.answered)
        log.info("agent.up", host=member.host, zone=member.zone)
        ends = [asyncio.create_task(event.wait()) for event in (stop, membership.ended)]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
    return membership.ended.is_set()


async def _serve(
    stack: AsyncExitStack,
    settings: Configuration,
    member: JoinedHost,
    identity: Identity,
    answered: Callable[[bool], None],
) -> None:
    wire = await stack.enter_async_context(open_bus(member.bus, of_host=member.own_account))
    bus = SignedBus(wire, Signatures(identity), required=settings.signatures == "required")
    process = f"agent.{member.host}.{new_id()}"  # which the rights of its account on the bus name
    calls = await stack.enter_async_context(CallClient(bus, process, pace=PACE))
    events = await stack.enter_async_context(ZoneEvents(calls, member.zone))
    underlay = _underlay(settings, member)
    host = await local_host(stack, settings, ZoneSupplies(calls, member.zone), events, underlay)
    streams = served_streams(
        build_streams(host, settings.data),
        stack.enter_context(_listener(settings, underlay)),
        identity.server_context(Expectation(Role.SERVE), Expectation(Role.WORKER)),
    )
    await stack.enter_async_context(streams)
    await stack.enter_async_context(background(keep_renewed(identity, member, time.time), "certificate"))
    beating = send_heartbeats(
        member.host, host, ZoneSigns(calls, member.zone), settings.silence / PER_TIMEOUT, answered
    )
    await stack.enter_async_context(background(beating, "heartbeat"))
    await stack.enter_async_context(served_host(bus, member.host, host, settings.data / "receipts.db"))


def _underlay(settings: Configuration, member: JoinedHost) -> IPv4Address:
    """Raises InvalidInput: it is no IPv4 address."""
    try:
        return settings.underlay or IPv4Address(member.address)
    except ValueError as error:
        raise InvalidInput(
            f"{member.address!r} is no IPv4 address: set 'underlay' to the one that other hosts reach."
        ) from error


def _listener(settings: Configuration, address: IPv4Address) -> socket.socket:
    """Raises InvalidInput: the machine has no such address."""
    listener = socket.socket(socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((str(address), settings.agent_port))
    except OSError as error:
        listener.close()
        raise InvalidInput(
            f"The agent cannot listen on {address}:{settings.agent_port}: {error.strerror}; see "
            "'underlay' and 'agent_port'."
        ) from error
    return listener
