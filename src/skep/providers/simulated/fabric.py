"""Networks as records: who is plugged in where, and what is published.  Satisfies `Fabric` of control."""

from collections.abc import Collection
from ipaddress import IPv4Address
from pathlib import Path

import msgspec

from skep.model.errors import Conflict, InvalidInput, NotFound
from skep.model.host import (
    NetworkConfig,
    NetworkGuards,
    NetworkPeers,
    NetworkVirtualIps,
    PeersInForce,
    PortConfig,
    Publication,
    ServicePublications,
    in_force,
    must_be_news,
)
from skep.model.ids import NetworkId, PortId, ReplicaId, ServiceId
from skep.model.publishing import give_way


class SimulatedFabric:
    """`listening`: the (protocol, port) pairs that processes of the host itself listen on."""

    def __init__(
        self, *, root: Path = Path("/simulated/netns"), listening: Collection[tuple[str, int]] = ()
    ) -> None:
        self._root = root
        self._listening = frozenset(listening)
        self._networks: dict[NetworkId, NetworkConfig] = {}
        self._sandboxes: dict[ReplicaId, dict[PortId, PortConfig]] = {}
        self._published: dict[ServiceId, ServicePublications] = {}
        self._resolvable: set[ReplicaId] = set()
        self._peers: dict[NetworkId, NetworkPeers] = {}
        self._guards: dict[NetworkId, NetworkGuards] = {}
        self._virtual_ips: dict[NetworkId, NetworkVirtualIps] = {}

    async def ensure_network(self, network: NetworkConfig) -> None:
        for other in self._networks.values():
            if other.index == network.index and other.id != network.id:
                raise Conflict(f"Network {other.id} already has index {network.index} on this host.")
        self._networks[network.id] = network

    async def delete_network(self, network: NetworkId) -> None:
        """With its ports and with what leads to it, as the local one."""
        for port in [port for port in self._ports() if port.network == network]:
            await self.unplug(port.id)
        for service, items in list(self._published.items()):
            left = tuple(item for item in items.publications if item.network != network)
            self._published[service] = msgspec.structs.replace(items, publications=left)
        self._networks.pop(network, None)
        self._peers.pop(network, None)
        self._guards.pop(network, None)
        self._virtual_ips.pop(network, None)

    async def plug(self, port: PortConfig) -> None:
        self._check(port, self._known(port.network))
        for other in self._ports():
            if other.id == port.id and other.replica != port.replica:
                raise Conflict(f"Port {port.id} is plugged into replica {other.replica}; unplug it first.")
            if other.id == port.id or other.network != port.network:
                continue
            if other.address == port.address or (port.address6 and other.address6 == port.address6):
                raise Conflict(f"An address of port {port.id} is in use by port {other.id}.")
        self._sandboxes.setdefault(port.replica, {})[port.id] = port

    async def unplug(self, port: PortId) -> None:
        for ports in self._sandboxes.values():
            ports.pop(port, None)

    async def remove_sandbox(self, replica: ReplicaId) -> None:
        self._sandboxes.pop(replica, None)
        self._resolvable.discard(replica)

    def sandbox(self, replica: ReplicaId) -> Path:
        return self._root / replica

    async def set_resolvable(self, replica: ReplicaId, up: bool) -> None:
        if up and replica in self._sandboxes:
            self._resolvable.add(replica)
        else:
            self._resolvable.discard(replica)

    async def set_peers(self, peers: NetworkPeers) -> None:
        network = self._known(peers.network)
        addresses = [
            *(one.gateway for one in network.subnets),
            *([network.ipv6.gateway] if network.ipv6 else []),
            *(address for port in peers.ports for address in (port.address, port.address6) if address),
        ]
        macs = [port.mac for port in peers.ports]
        if len(set(addresses)) < len(addresses) or len(set(macs)) < len(macs):
            raise InvalidInput(
                f"Two peers of network {network.name!r}, or one and its gateway, are the same."
            )
        must_be_news(f"the peers of network {peers.network}", peers, self._peers.get(peers.network))
        self._peers[peers.network] = peers

    async def peers(self) -> dict[NetworkId, PeersInForce]:
        return in_force(self._peers)

    async def set_guards(self, guards: NetworkGuards) -> None:
        self._known(guards.network)
        known = {group.id for group in guards.groups}
        if strange := {name for port in guards.ports for name in port.groups} - known:
            raise InvalidInput(f"A port is in group {min(strange)}, which is none of the groups.")
        must_be_news(f"the guards of network {guards.network}", guards, self._guards.get(guards.network))
        self._guards[guards.network] = guards

    async def guards(self) -> dict[NetworkId, PeersInForce]:
        return in_force(self._guards)

    def known_networks(self) -> dict[NetworkId, NetworkConfig]:
        """What the host was told, in full."""
        return dict(self._networks)

    def known_ports(self) -> dict[PortId, PortConfig]:
        return {port.id: port for port in self._ports()}

    def known_peers(self) -> dict[NetworkId, NetworkPeers]:
        """What the host was told, in full."""
        return dict(self._peers)

    def known_guards(self) -> dict[NetworkId, NetworkGuards]:
        """What the host was told, in full."""
        return dict(self._guards)

    async def set_virtual_ips(self, told: NetworkVirtualIps) -> None:
        network = self._known(told.network)
        addresses = [one.address for one in told.virtual_ips]
        if len(set(addresses)) < len(addresses) or not all(map(network.fits, addresses)):
            raise InvalidInput(f"A virtual IP is none of network {network.name!r}, or is there twice.")
        must_be_news(f"the virtual IPs of network {told.network}", told, self._virtual_ips.get(told.network))
        self._virtual_ips[told.network] = told

    async def virtual_ips(self) -> dict[NetworkId, PeersInForce]:
        return in_force(self._virtual_ips)

    def known_virtual_ips(self) -> dict[NetworkId, NetworkVirtualIps]:
        """What the host was told, in full."""
        return dict(self._virtual_ips)

    async def publish(self, publications: ServicePublications) -> None:
        shrunk = give_way(publications, self._published.values())
        for item in publications.publications:
            self._check_publication(item)
        self._published |= {one.service: one for one in (*shrunk, publications)}

    async def unpublish(self, service: ServiceId) -> None:
        self._published.pop(service, None)

    async def networks(self) -> set[NetworkId]:
        return set(self._networks)

    async def ports(self) -> set[PortId]:
        return {port.id for port in self._ports()}

    async def sandboxes(self) -> set[ReplicaId]:
        return set(self._sandboxes)

    async def published(self) -> dict[ServiceId, ServicePublications]:
        return dict(self._published)

    def resolve(self, network: NetworkId, name: str) -> set[IPv4Address]:
        """What the network's resolver would answer for a name within the app that has it."""
        told = self._virtual_ips.get(network)
        led = {one.address for one in (told.virtual_ips if told else ()) if name in one.names}
        return led or self._replicas(network, name.removeprefix("tasks."))

    def _replicas(self, network: NetworkId, name: str) -> set[IPv4Address]:
        return {
            port.address
            for port in self._ports()
            if port.network == network and name in port.names and port.replica in self._resolvable
        } | {
            port.address
            for port in (self._peers[network].ports if network in self._peers else ())
            if port.up and name in port.names
        }

    def _ports(self) -> list[PortConfig]:
        return [port for ports in self._sandboxes.values() for port in ports.values()]

    def _known(self, network: NetworkId) -> NetworkConfig:
        if network not in self._networks:
            raise NotFound(f"This host has no network {network}; ensure it first.")
        return self._networks[network]

    @staticmethod
    def _check(port: PortConfig, network: NetworkConfig) -> None:
        if not network.fits(port.address):
            raise InvalidInput(f"Address {port.address} is not free for a port of network {network.name!r}.")
        if port.address6 is not None and not network.fits6(port.address6):
            raise InvalidInput(f"Address {port.address6} is not free for a port of network {network.name!r}.")

    def _check_publication(self, item: Publication) -> None:
        network = self._known(item.network)
        if network.internal:
            raise InvalidInput(f"Network {network.name!r} is internal: nothing on it can be published.")
        if (item.protocol, item.published) in self._listening:
            raise Conflict(f"Port {item.published}/{item.protocol} is in use: a process of the host listens.")
