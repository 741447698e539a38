"""The networks of tenants in a cluster.  Satisfies `Fabric` of control.

The cluster gives pods and services their addresses.  Those of control's say which replica is meant: by the
port that was plugged.  What was told is kept in the tenant's namespace, so a younger process knows it.
"""

from collections.abc import Callable, Iterator

from skep.model.errors import Conflict, InvalidInput, NotFound, SkepError, Unsupported
from skep.model.host import (
    NetworkConfig,
    NetworkGuards,
    NetworkPeers,
    NetworkVirtualIps,
    PeersInForce,
    PortConfig,
    ServicePublications,
    Told,
    in_force,
    must_be_news,
)
from skep.model.ids import NetworkId, PortId, ReplicaId, ServiceId, TenantId
from skep.model.publishing import give_way
from skep.providers.kubernetes.network.records import NetworkRecord
from skep.providers.kubernetes.network.tenancies import Tenancies
from skep.providers.kubernetes.network.tenancy import Key, Tenancy

_TAKEN, _OUTSIDE = "already allocated", "not in the valid range"
"""How an API server says that a node port cannot be had."""


class ClusterFabric:
    def __init__(self, tenancies: Tenancies) -> None:
        self._tenancies = tenancies

    async def ensure_network(self, network: NetworkConfig) -> None:
        tenancy = self._tenancies.tenancy(network.tenant)
        known = tenancy.record.networks.setdefault(network.id, NetworkRecord(config=network))
        known.config = network
        await self._brought(tenancy, network.id)

    async def delete_network(self, network: NetworkId) -> None:
        tenancy = self._having(network)
        if tenancy is None:
            return
        tenancy.record.delete_network(network)
        await self._brought(tenancy, network)

    async def plug(self, port: PortConfig) -> None:
        """It holds for whatever pod stands for the replica."""
        tenancy = self._owner(port.network)
        tenancy.record.network(port.network).plug(port)
        await self._brought(tenancy, port.network)

    async def unplug(self, port: PortId) -> None:
        await self._drop(lambda one: one.id == port)

    async def remove_sandbox(self, replica: ReplicaId) -> None:
        self._tenancies.forget(replica)
        await self._drop(lambda one: one.replica == replica)

    async def set_resolvable(self, replica: ReplicaId, up: bool) -> None:
        """Beside: they resolve only while its pod runs."""
        await self._tenancies.resolvable(replica, up)

    async def set_peers(self, peers: NetworkPeers) -> None:
        known = self._owner(peers.network).record.network(peers.network)
        must_be_news(f"the peers of network {peers.network}", peers, known.peers)
        known.meet(peers)
        await self._brought(self._owner(peers.network), peers.network)

    async def peers(self) -> dict[NetworkId, PeersInForce]:
        return self._in_force(lambda network: network.peers)

    async def set_guards(self, guards: NetworkGuards) -> None:
        known = self._owner(guards.network).record.network(guards.network)
        must_be_news(f"the guards of network {guards.network}", guards, known.guards)
        known.guard(guards)
        await self._brought(self._owner(guards.network), guards.network)

    async def guards(self) -> dict[NetworkId, PeersInForce]:
        return self._in_force(lambda network: network.guards)

    async def set_virtual_ips(self, told: NetworkVirtualIps) -> None:
        known = self._owner(told.network).record.network(told.network)
        must_be_news(f"the virtual IPs of network {told.network}", told, known.virtual_ips)
        known.lead(told)
        await self._brought(self._owner(told.network), told.network)

    async def virtual_ips(self) -> dict[NetworkId, PeersInForce]:
        return self._in_force(lambda network: network.virtual_ips)

    async def publish(self, publications: ServicePublications) -> None:
        """At every node of the cluster.

        Raises:
            Unsupported: nodes do not offer such a port.  Stale: see `give_way`.
            Conflict: another service of the cluster has it.
        """
        if not publications.publications:
            return await self.unpublish(publications.service)
        tenancy = self._owner(publications.publications[0].network)
        before = tenancy.record.published.get(publications.service)
        await self._make_room(publications)
        if before is None or before.publications != publications.publications:
            tenancy.record.publish(publications)
        try:
            await self._tenancies.brought(tenancy, lambda key: publications.service in key[1])
        except SkepError as error:
            self._put_back(tenancy, publications.service, before)
            await self._tenancies.brought(tenancy)
            raise _said(error) from error

    async def _make_room(self, publications: ServicePublications) -> None:
        """Who has given a port away does so in the cluster first: it lets nobody take what another has."""
        whose = {
            service: tenancy for tenancy in self._tenancies.every() for service in tenancy.record.published
        }
        known = [tenancy.record.published[service] for service, tenancy in whose.items()]
        for one in give_way(publications, known):
            published = whose[one.service].record.published
            published[one.service] = one
            if not one.publications:
                del published[one.service]
            await self._tenancies.brought(whose[one.service])

    async def unpublish(self, service: ServiceId) -> None:
        for tenancy in self._tenancies.every():
            if tenancy.record.published.pop(service, None) is not None:
                await self._tenancies.brought(tenancy, lambda key: service in key[1])

    def guarded(self, tenant: TenantId) -> set[ReplicaId]:
        """Those of the tenant that rules of groups decide about, or name in what they say of others."""
        own = (one.record.networks.values() for one in self._tenancies.every() if one.of.tenant == tenant)
        guarded = (network for networks in own for network in networks if network.guarded)
        return {port.replica for network in guarded for port in network.ports.values()}

    async def networks(self) -> set[NetworkId]:
        return {network.config.id for network in self._networks()}

    async def ports(self) -> set[PortId]:
        return {port for network in self._networks() for port in network.ports}

    async def sandboxes(self) -> set[ReplicaId]:
        return {port.replica for network in self._networks() for port in network.ports.values()}

    async def published(self) -> dict[ServiceId, ServicePublications]:
        every = self._tenancies.every()
        return {service: told for tenancy in every for service, told in tenancy.record.published.items()}

    # -- finding ------------------------------------------------------------------------------------

    def _networks(self) -> Iterator[NetworkRecord]:
        for tenancy in self._tenancies.every():
            yield from (one for key, one in tenancy.record.networks.items() if tenancy.has(key))

    def _in_force(self, told: Callable[[NetworkRecord], Told | None]) -> dict[NetworkId, PeersInForce]:
        """Not of a network of which something was refused: who told it tells it again."""
        failed = [key for tenancy in self._tenancies.every() for key in tenancy.failed]
        found = {network.config.id: told(network) for network in self._networks()}
        return in_force(
            {
                network: one
                for network, one in found.items()
                if one is not None and not any(_is_of(key, network) for key in failed)
            }
        )

    def _having(self, network: NetworkId) -> Tenancy | None:
        every = self._tenancies.every()
        return next((one for one in every if network in one.record.networks), None)

    def _owner(self, network: NetworkId) -> Tenancy:
        """Raises NotFound."""
        if (found := self._having(network)) is None:
            raise NotFound(f"This cluster has no network {network}; ensure it first.")
        return found

    # -- changing -----------------------------------------------------------------------------------

    async def _drop(self, meant: Callable[[PortConfig], bool]) -> None:
        for tenancy in self._tenancies.every():
            for network in list(tenancy.record.networks.values()):
                if gone := [key for key, port in network.ports.items() if meant(port)]:
                    for key in gone:
                        network.ports.pop(key, None)
                    await self._brought(tenancy, network.config.id)

    async def _brought(self, tenancy: Tenancy, network: NetworkId) -> None:
        await self._tenancies.brought(tenancy, lambda key: _is_of(key, network))

    @staticmethod
    def _put_back(tenancy: Tenancy, service: ServiceId, before: ServicePublications | None) -> None:
        if before is None:
            tenancy.record.published.pop(service, None)
        else:
            tenancy.record.published[service] = before


def _is_of(key: Key, network: NetworkId) -> bool:
    """Whether the object is one that the network cannot be without."""
    return key[1].startswith(f"network-{network}")


def _said(error: SkepError) -> SkepError:
    """In words that who publishes understands."""
    if isinstance(error, InvalidInput) and _TAKEN in error.message:
        return Conflict(f"The port is in use: another service of the cluster has it. ({error.message})")
    if isinstance(error, InvalidInput) and _OUTSIDE in error.message:
        return Unsupported(f"Nodes of this cluster do not offer the port. ({error.message})")
    return error
