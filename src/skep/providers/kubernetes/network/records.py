"""What a tenant's networks are told, as it is kept in the cluster: a ConfigMap each.  Pure.

A younger process reads them, and so knows which news are stale.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, TypeVar

import msgspec

from skep.model.edge import AppEndpoints
from skep.model.errors import Conflict, InvalidInput, NotFound, Unsupported
from skep.model.host import (
    NetworkConfig,
    NetworkGuards,
    NetworkPeers,
    NetworkVirtualIps,
    PortConfig,
    ServicePublications,
)
from skep.model.ids import AppId, NetworkId, PortId, ReplicaId, ServiceId
from skep.model.publishing import ANY_ADDRESS
from skep.providers.kubernetes.manifests import Manifest, TenantNamespace

RECORD = "record"
"""The label (`skep.dev/record`) that says of what a ConfigMap is the record."""
_KEY = "told"
_ADDRESSES = (IPv4Address, IPv6Address, IPv4Network, IPv6Network)

R = TypeVar("R")


class NetworkRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A network with all that is plugged in, and what it was told last."""

    config: NetworkConfig
    ports: dict[PortId, PortConfig] = {}
    guards: NetworkGuards | None = None
    virtual_ips: NetworkVirtualIps | None = None
    peers: NetworkPeers | None = None

    @property
    def guarded(self) -> bool:
        """Whether groups decide about anybody: then each replica is spoken of by its name."""
        return bool(self.guards and self.guards.ports)

    def at(self) -> dict[IPv4Address, ReplicaId]:
        """Whose port has which address."""
        return {port.address: port.replica for port in self.ports.values()}

    def replicas(self, addresses: Iterable[IPv4Address]) -> list[ReplicaId]:
        """Those that are plugged in here."""
        at = self.at()
        return [at[one] for one in addresses if one in at]

    def plug(self, port: PortConfig) -> None:
        """Raises InvalidInput, Conflict: it cannot have the address."""
        self._check(port)
        for other in self.ports.values():
            if other.id == port.id and other.replica != port.replica:
                raise Conflict(f"Port {port.id} is plugged into replica {other.replica}; unplug it first.")
            if other.id != port.id and _share(port, other):
                raise Conflict(f"An address of port {port.id} is in use by port {other.id}.")
        self.ports[port.id] = port

    def guard(self, guards: NetworkGuards) -> None:
        """Raises InvalidInput: a port is in a group that is none."""
        known = {group.id for group in guards.groups}
        if strange := {name for port in guards.ports for name in port.groups} - known:
            raise InvalidInput(f"A port is in group {min(strange)}, which is none of the groups.")
        self.guards = guards

    def lead(self, told: NetworkVirtualIps) -> None:
        """Raises InvalidInput: a virtual IP is none of the network."""
        addresses = [one.address for one in told.virtual_ips]
        if len(set(addresses)) < len(addresses) or not all(map(self.config.fits, addresses)):
            raise InvalidInput(f"A virtual IP is none of network {self.config.name!r}, or is there twice.")
        self.virtual_ips = told

    def meet(self, peers: NetworkPeers) -> None:
        """Raises Unsupported: there are any."""
        if peers.hosts or peers.ports or peers.egress:
            raise Unsupported("A network of a cluster reaches no hosts outside of the cluster.")
        self.peers = peers

    def _check(self, port: PortConfig) -> None:
        strange = not self.config.fits(port.address)
        strange6 = port.address6 is not None and not self.config.fits6(port.address6)
        if strange or strange6:
            said = port.address if strange else port.address6
            raise InvalidInput(f"Address {said} is not free for a port of network {self.config.name!r}.")


class TenantRecord(msgspec.Struct, kw_only=True):
    """All that is known of one tenant's networks."""

    networks: dict[NetworkId, NetworkRecord] = {}
    published: dict[ServiceId, ServicePublications] = {}
    endpoints: dict[AppId, AppEndpoints] = {}

    @property
    def empty(self) -> bool:
        """An app without endpoints is remembered, but is nothing."""
        return not self.networks and not self.published and not any(map(_some, self.endpoints.values()))

    def network(self, network: NetworkId) -> NetworkRecord:
        """Raises NotFound."""
        if network not in self.networks:
            raise NotFound(f"This cluster has no network {network}; ensure it first.")
        return self.networks[network]

    def publish(self, told: ServicePublications) -> None:
        """Raises InvalidInput, Unsupported, Conflict: it cannot be."""
        for one in told.publications:
            if self.network(one.network).config.internal:
                name = self.network(one.network).config.name
                raise InvalidInput(f"Network {name!r} is internal: nothing on it can be published.")
            if one.host_ip not in ANY_ADDRESS:
                raise Unsupported(
                    f"Port {one.published} cannot be published on {one.host_ip} alone: in a cluster it is on "
                    "all nodes. Leave the address out."
                )
        self.published[told.service] = told

    def delete_network(self, network: NetworkId) -> None:
        """With what leads to it."""
        self.networks.pop(network, None)
        for service, told in list(self.published.items()):
            left = tuple(one for one in told.publications if one.network != network)
            self.published[service] = msgspec.structs.replace(told, publications=left)
            if not left:
                del self.published[service]

    def manifests(self, of: TenantNamespace) -> list[Manifest]:
        told: list[tuple[str, str, object]] = [
            *(("network", key, one) for key, one in self.networks.items()),
            *(("published", key, one) for key, one in self.published.items()),
            *(("endpoints", key, one) for key, one in self.endpoints.items()),
        ]
        return [
            of.object("v1", "ConfigMap", f"{kind}-{key}", {RECORD: kind}, data={_KEY: _written(one)})
            for kind, key, one in told
        ]

    def read(self, kind: str, data: dict[str, str] | None) -> None:
        """Take in what a ConfigMap says; one that somebody has damaged is as good as none."""
        text = (data or {}).get(_KEY, "")
        try:
            self._take(kind, text)
        except msgspec.DecodeError:
            return

    def _take(self, kind: str, text: str) -> None:
        match kind:
            case "network":
                network = _read(text, NetworkRecord)
                self.networks[network.config.id] = network
            case "published":
                published = _read(text, ServicePublications)
                self.published[published.service] = published
            case "endpoints":
                endpoints = _read(text, AppEndpoints)
                self.endpoints[endpoints.app] = endpoints


def _some(told: AppEndpoints) -> bool:
    return bool(told.endpoints)


def _share(one: PortConfig, other: PortConfig) -> bool:
    return one.address == other.address or (one.address6 is not None and one.address6 == other.address6)


def _written(value: object) -> str:
    return msgspec.json.encode(value, enc_hook=str).decode()


def _read(text: str, kind: type[R]) -> R:
    return msgspec.json.decode(text, type=kind, dec_hook=_address)


def _address(kind: type, value: Any) -> object:
    if kind not in _ADDRESSES:
        raise NotImplementedError(kind)
    return kind(value)
