"""Where connections to the services of a network are led, as each of its hosts must know it.  Pure."""

from collections.abc import Collection, Iterable, Mapping
from ipaddress import IPv4Address

import msgspec

from skep.control.naming import attachments, network_name, scope
from skep.control.telling.listening import Listening
from skep.control.telling.serving import home_of_host, near, serving
from skep.model.host import Backend, ContainerState, NetworkVirtualIps, VirtualIp
from skep.model.ids import HostName, NetworkId, ReplicaId, ServiceId
from skep.model.names import ServiceName
from skep.model.spec import AppSpec
from skep.store.networks import AttachmentRow
from skep.store.replicas import ReplicaRow
from skep.store.virtual_ips import NamedVirtualIpRow


class VirtualMap:
    """One network as the rows have it.  `generation` is when they were read: a later one knows more."""

    def __init__(
        self,
        network: NetworkId,
        generation: int,
        addresses: Iterable[NamedVirtualIpRow],
        attached: Iterable[AttachmentRow],
        members: Mapping[ServiceId, list[ReplicaRow]],
        silent: Collection[HostName] = (),
        listening: Mapping[ServiceId, Listening] | None = None,
        clusters: Collection[HostName] = (),
    ) -> None:
        self.network = network
        self.generation = generation
        self._addresses = list(addresses)
        self._ports = {row.replica_id: row for row in attached}
        self._members = members
        self._silent = silent
        self._listening = listening or {}
        self._clusters = clusters
        self._known: dict[str, tuple[NetworkVirtualIps, str]] = {}
        self.hosts = sorted({row.host for row in self._ports.values()})

    def seen_from(self, host: HostName, at_least: int = 0) -> NetworkVirtualIps:
        """The same from every machine; clusters hear of their own replicas alone, and of ports, too."""
        return msgspec.structs.replace(self._told(host)[0], generation=max(self.generation, at_least))

    def digest_from(self, host: HostName) -> str:
        return self._told(host)[1]

    def _told(self, host: HostName) -> tuple[NetworkVirtualIps, str]:
        """With its digest."""
        home = home_of_host(host, self._clusters)
        if home not in self._known:
            made = NetworkVirtualIps(
                network=self.network,
                generation=self.generation,
                virtual_ips=tuple(self._virtual_ip(row, home) for row in self._addresses),
            )
            self._known[home] = made, made.digest
        return self._known[home]

    def _virtual_ip(self, row: NamedVirtualIpRow, home: str) -> VirtualIp:
        found = near(self._members.get(row.service_id, ()), home, self._clusters)
        members = [one for one in found if one.id in self._ports]
        return VirtualIp(
            service=row.service_id,
            address=IPv4Address(row.address),
            app=scope(row.app, row.guest),
            names=_names(row.service, [self._ports[one.id] for one in members]),
            backends=tuple(
                Backend(address=IPv4Address(self._ports[replica].address), weight=weight)
                for replica, weight in sorted(self._weights(members, home).items())
            ),
            ports=self._listening.get(row.service_id, ()) if home else (),
        )

    def _weights(self, members: list[ReplicaRow], home: str) -> dict[ReplicaId, int]:
        if not home:
            return weights(members, self._silent)
        return {row.id: row.weight for row in serving(members, self._clusters)}


def weights(members: Iterable[ReplicaRow], silent: Collection[HostName] = ()) -> dict[ReplicaId, int]:
    """Who gets connections of a service, and with 0 who keeps those it has: it runs, and is to go.

    Or its host is `silent`: what runs there may be talking, but nobody else is sent there, unless all are.
    """
    known = list(members)
    kept = {row.id: 0 for row in known if row.desired == "running" and _runs(row) and _leaves(row, silent)}
    return kept | {row.id: row.weight for row in _reached(serving(known), silent)}


def _leaves(row: ReplicaRow, silent: Collection[HostName]) -> bool:
    return row.weight == 0 or row.host in silent


def _reached(rows: list[ReplicaRow], silent: Collection[HostName]) -> list[ReplicaRow]:
    return [row for row in rows if row.host not in silent] or rows


def _runs(row: ReplicaRow) -> bool:
    return row.status is not None and row.status.state is ContainerState.RUNNING


def _names(service: str, ports: Iterable[AttachmentRow]) -> tuple[str, ...]:
    """The service's own and its aliases: what its ports are called, but for the name of each replica."""
    return tuple(dict.fromkeys([service, *(name for port in ports for name in port.names[1:])]))


NOTHING = NetworkVirtualIps(network=NetworkId(""), generation=0).digest


def virtual_maps(
    generation: int,
    addresses: Iterable[NamedVirtualIpRow],
    attached: Iterable[AttachmentRow],
    members: Iterable[ReplicaRow],
    silent: Collection[HostName] = (),
    listening: Mapping[ServiceId, Listening] | None = None,
    clusters: Collection[HostName] = (),
) -> dict[NetworkId, VirtualMap]:
    """A map of every network on which a service has an address; `silent` hosts do not answer.

    `clusters` are the hosts that are one: they are told at which ports services listen.
    """
    services: dict[ServiceId, list[ReplicaRow]] = {}
    for member in members:
        services.setdefault(member.service_id, []).append(member)
    led: dict[NetworkId, list[NamedVirtualIpRow]] = {}
    for row in addresses:
        led.setdefault(row.network_id, []).append(row)
    ports: dict[NetworkId, list[AttachmentRow]] = {}
    for port in attached:
        ports.setdefault(port.network_id, []).append(port)
    return {
        network: VirtualMap(
            network, generation, found, ports.get(network, ()), services, silent, listening, clusters
        )
        for network, found in led.items()
    }


def wanted(
    spec: AppSpec, services: Mapping[ServiceName, ServiceId], known: Mapping[str, NetworkId]
) -> set[tuple[ServiceId, NetworkId]]:
    """On which networks the services of an app have an address; `known` are networks by name."""
    return {
        (services[name], known[network_name(spec.name, network, spec)])
        for name, service in spec.services.items()
        if service.endpoint_mode == "vip" and name in services
        for network, _ in attachments(service)
        if network_name(spec.name, network, spec) in known
    }
