"""`skep agent`: the containers, networks and disks of this machine, at the command of control elsewhere.

The machine must have joined (`skep agent join`): from then on the directory `agent` in `etc` says which host
it is, where the bus is, and what it proves itself with.
"""

import socket
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import structlog

from skep.agent.service import served_host
from skep.agent.streams import build_streams, served_streams
from skep.agent.zone import PACE, ZoneEvents, ZoneSupplies
from skep.bus.client import CallClient
from skep.bus.opening import open_bus
from skep.configuration import Configuration
from skep.main.local_host import local_host
from skep.main.process import alone, collect_garbage_seldom, stopped
from skep.model.errors import Conflict, InvalidInput
from skep.model.ids import HostName, ZoneName, new_id
from skep.providers.local.programs import require_programs
from skep.trust.contexts import Expectation
from skep.trust.identity import Identity
from skep.trust.peers import Role

log = structlog.get_logger("skep")


class Membership(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine was told when it joined."""

    host: HostName
    zone: ZoneName
    bus: str


async def run(settings: Configuration) -> None:
    """Serve control until SIGTERM or SIGINT.  Containers go on, and are adopted by the next agent."""
    collect_garbage_seldom()
    member, identity = _joined(settings.etc / "agent")
    stop = stopped()
    require_programs()
    with alone(settings):
        async with AsyncExitStack() as stack:
            await _serve(stack, settings, member, identity)
            log.info("agent.up", host=member.host, zone=member.zone)
            await stop.wait()
    log.info("skep.ended")


async def _serve(
    stack: AsyncExitStack, settings: Configuration, member: Membership, identity: Identity
) -> None:
    bus = await stack.enter_async_context(open_bus(member.bus))
    process = f"{member.host}-{new_id()}"
    calls = await stack.enter_async_context(CallClient(bus, process, pace=PACE))
    events = await stack.enter_async_context(ZoneEvents(calls, member.zone))
    host = await local_host(stack, settings, ZoneSupplies(calls, member.zone), events)
    streams = served_streams(
        build_streams(host),
        stack.enter_context(_listener(settings)),
        identity.server_context(Expectation(Role.SERVE), Expectation(Role.WORKER)),
    )
    await stack.enter_async_context(streams)
    await stack.enter_async_context(served_host(bus, member.host, host, settings.data / "receipts.db"))


def _joined(directory: Path) -> tuple[Membership, Identity]:
    """Raises Conflict: this machine is no host yet."""
    try:
        member = msgspec.json.decode((directory / "host.json").read_bytes(), type=Membership)
    except (OSError, msgspec.MsgspecError) as error:
        raise Conflict(
            "This machine has not joined an installation. On a machine of control 'skep host add' prints "
            "the command to run here."
        ) from error
    return member, Identity(directory)


def _listener(settings: Configuration) -> socket.socket:
    """Raises InvalidInput: the machine has no such address."""
    if settings.underlay is None:
        raise InvalidInput("'underlay' must be set: this machine's address on the network between hosts.")
    listener = socket.socket(socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((str(settings.underlay), settings.agent_port))
    except OSError as error:
        listener.close()
        raise InvalidInput(
            f"The agent cannot listen on {settings.underlay}:{settings.agent_port}: {error.strerror}; see "
            "'underlay' and 'agent_port'."
        ) from error
    return listener
