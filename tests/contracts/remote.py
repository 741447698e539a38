"""Real parts of a host, reached as from another machine: over the bus and over HTTPS."""

import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.trust.conftest import enrol

from skep.agent.service import served_host
from skep.agent.streams import build_streams, served_streams
from skep.bus.client import CallClient
from skep.bus.opening import open_bus
from skep.bus.signing import SignedBus
from skep.control.ports import DiskPool, Edge, Engine, Fabric, Host, ImageStore, Spool
from skep.model.host import HostFacts
from skep.model.ids import HostName
from skep.providers.remote import RemoteHost
from skep.providers.remote.host import facts_of
from skep.providers.remote.streams import HostStreams
from skep.providers.simulated import SimulatedHost
from skep.trust.authority import Authority
from skep.trust.contexts import Expectation
from skep.trust.peers import Role
from skep.trust.signatures import Signatures

NAME = HostName("host-1")
_SIMULATED = SimulatedHost.make()


@dataclass(frozen=True)
class Parts:
    """A host of which a test cares for one part."""

    facts: HostFacts = field(default_factory=lambda: _SIMULATED.facts)
    engine: Engine = field(default_factory=lambda: _SIMULATED.engine)
    disks: DiskPool = field(default_factory=lambda: _SIMULATED.disks)
    fabric: Fabric = field(default_factory=lambda: _SIMULATED.fabric)
    edge: Edge = field(default_factory=lambda: _SIMULATED.edge)
    images: ImageStore = field(default_factory=lambda: _SIMULATED.images)
    spool: Spool = field(default_factory=lambda: _SIMULATED.spool)


@asynccontextmanager
async def elsewhere(host: Host, folder: Path, bus_url: str = "") -> AsyncIterator[RemoteHost]:
    """The host as a worker sees it that shares no memory with it; without a `bus_url`, but a process."""
    authority = Authority.make("inst1", time.time())
    agent = enrol(authority, folder / "agent", Role.AGENT, NAME)
    worker = enrol(authority, folder / "worker", Role.WORKER, "worker-1")
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(open_bus(bus_url))
        far_bus = await stack.enter_async_context(open_bus(bus_url)) if bus_url else bus
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        tls = agent.server_context(Expectation(Role.WORKER), Expectation(Role.SERVE))
        await stack.enter_async_context(served_streams(build_streams(host, folder), listener, tls))
        far_bus, bus = SignedBus(far_bus, Signatures(agent)), SignedBus(bus, Signatures(worker))
        await stack.enter_async_context(served_host(far_bus, NAME, host, folder / "receipts.db"))
        calls = await stack.enter_async_context(CallClient(bus, "worker-1"))
        streams = HostStreams(
            f"127.0.0.1:{listener.getsockname()[1]}",
            worker.client_context(Expectation(Role.AGENT, NAME)),
        )
        await stack.enter_async_context(streams)
        yield RemoteHost.make(NAME, await facts_of(NAME, calls), calls, streams)
