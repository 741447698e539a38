"""The networks of one host, as control's `Fabric` wants them.

Entering adopts what is on the host; leaving takes nothing away but the resolvers, so containers go on
talking while skep restarts.  See docs/decisions/0004 for the shape.
"""

from contextlib import AsyncExitStack
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from pathlib import Path
from types import TracebackType
from typing import Self

from skep.model.host import (
    NetworkConfig,
    NetworkGuards,
    NetworkPeers,
    NetworkVirtualIps,
    PeersInForce,
    PortConfig,
    ServicePublications,
)
from skep.model.ids import NetworkId, PortId, ReplicaId, ServiceId
from skep.providers.local.network.balancing import Balancing
from skep.providers.local.network.edge_ways import EdgeWays
from skep.providers.local.network.forward import Forwarder, host_nameservers
from skep.providers.local.network.host import HostSide
from skep.providers.local.network.namespaces import Namespaces
from skep.providers.local.network.naming import Names
from skep.providers.local.network.overlay import Underlay
from skep.providers.local.network.publishing import Publishing
from skep.providers.local.network.routers import Routers
from skep.providers.local.network.sandboxes import Sandboxes
from skep.providers.local.network.state import State

LINK_POOL = IPv4Network("100.100.0.0/16")
LINK_LOCAL = IPv4Network("169.254.0.0/16")
"""Where clouds answer questions about the machine, credentials included."""
HOST = Path("/proc/self/ns/net")


class LocalFabric:
    """Satisfies `skep.control.ports.Fabric`.  One per instance and host; needs root.

    `link_pool` holds the links between host and routers; no two instances of a machine may share it.
    `upstream_dns` are IP addresses of name servers; empty: the host's own.  `private` are destinations that
    tenants cannot reach, `private6` those of IPv6; link-local ones always are.  `host` is the namespace the
    host's own interfaces are in.  With an `underlay` its networks reach those of the same index on other
    hosts; it must be an address of this host.
    """

    def __init__(
        self,
        *,
        instance: str,
        data: Path,
        link_pool: IPv4Network = LINK_POOL,
        upstream_dns: tuple[str, ...] = (),
        private: tuple[IPv4Network, ...] = (),
        private6: tuple[IPv6Network, ...] = (),
        host: Path = HOST,
        underlay: Underlay | None = None,
    ) -> None:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        self._namespaces = Namespaces(host)
        state = State(data, self._namespaces, boot)
        self._state = state
        hidden = tuple(collapse_addresses((LINK_LOCAL, *private)))
        self._host = HostSide(Names(instance), self._namespaces, state, link_pool, hidden, underlay, private6)
        forwarder = Forwarder(self._namespaces, upstream_dns or host_nameservers())
        self._routers = Routers(self._host, forwarder)
        self._balancing = Balancing(self._host, self._routers)
        self._sandboxes = Sandboxes(self._host, self._routers, self._balancing)
        self._publishing = Publishing(self._host, self._routers)
        self.ways = EdgeWays(self._host, self._routers)
        """How the edge of the same host reaches replicas."""

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._namespaces)
            stack.push_async_callback(self._routers.close)
            await self._state.load()
            await self._host.prepare()
            await self.ways.adopt()
            await self._routers.adopt()
            stack.callback(self._balancing.close)
            await self._balancing.adopt()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def ensure_network(self, network: NetworkConfig) -> None:
        await self._routers.ensure(network)

    async def delete_network(self, network: NetworkId) -> None:
        """Remove the network with what is plugged into it and published from it."""
        await self._publishing.forget(network)
        await self._sandboxes.forget(network)
        await self._routers.remove(network)
        await self._publishing.forget(network)  # what was told until the network was gone

    async def plug(self, port: PortConfig) -> None:
        await self._sandboxes.plug(port)

    async def unplug(self, port: PortId) -> None:
        await self._sandboxes.unplug(port)

    async def remove_sandbox(self, replica: ReplicaId) -> None:
        await self._sandboxes.remove(replica)

    def sandbox(self, replica: ReplicaId) -> Path:
        return self._sandboxes.path(replica)

    async def set_resolvable(self, replica: ReplicaId, up: bool) -> None:
        await self._sandboxes.set_resolvable(replica, up)

    async def set_peers(self, peers: NetworkPeers) -> None:
        await self._routers.set_peers(peers)

    async def peers(self) -> dict[NetworkId, PeersInForce]:
        return self._state.peers_in_force()

    async def set_guards(self, guards: NetworkGuards) -> None:
        await self._routers.set_guards(guards)

    async def guards(self) -> dict[NetworkId, PeersInForce]:
        return self._state.guards_in_force()

    async def set_virtual_ips(self, told: NetworkVirtualIps) -> None:
        await self._balancing.set_virtual_ips(told)

    async def virtual_ips(self) -> dict[NetworkId, PeersInForce]:
        return self._state.virtual_ips_in_force()

    async def publish(self, publications: ServicePublications) -> None:
        await self._publishing.publish(publications)

    async def unpublish(self, service: ServiceId) -> None:
        await self._publishing.unpublish(service)

    async def networks(self) -> set[NetworkId]:
        return await self._routers.whole()

    async def ports(self) -> set[PortId]:
        return await self._sandboxes.whole_ports()

    async def sandboxes(self) -> set[ReplicaId]:
        return self._sandboxes.living()

    async def published(self) -> dict[ServiceId, ServicePublications]:
        return await self._publishing.published()
