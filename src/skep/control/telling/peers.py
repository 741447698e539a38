"""Who is where on a network: what each of its hosts must know of the others.  Pure."""

from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address
from types import MappingProxyType

from skep.control.naming import scope
from skep.model.host import Egress, NetworkPeers, RemotePort, digest_of, mark, together
from skep.model.ids import HostName, NetworkId
from skep.model.topology import Liveness
from skep.store.egress import EgressRow
from skep.store.hosts import HostRow
from skep.store.networks import AttachmentRow


class NetworkMap:
    """One network as the rows have it.  `generation` is when they were read: a later one knows more.

    A host without an underlay address, and one that was given up for gone, is not on the map: the others
    drop what it sends.  One that is only lost stays, since what it runs may be talking; but nobody is sent
    there by name.  The host that leads the network outside is on the map, with ports or without.
    """

    def __init__(
        self,
        network: NetworkId,
        generation: int,
        attachments: Iterable[AttachmentRow],
        hosts: Mapping[HostName, HostRow],
        egress: EgressRow | None = None,
        *,
        everywhere: bool = False,
    ) -> None:
        self.network = network
        self.generation = generation
        self._ports: dict[HostName, list[RemotePort]] = {}
        self._egress = egress
        leader = egress.host if egress else None
        places = {
            name: row
            for name, row in hosts.items()
            if (row.underlay or name == leader) and row.state != Liveness.GONE
        }
        self.hosts: dict[HostName, IPv4Address] = {}
        if leader in places:
            self.hosts[leader] = IPv4Address(places[leader].underlay or 0)
        for row in attachments:
            if row.host in places:
                self.hosts.setdefault(row.host, IPv4Address(places[row.host].underlay or 0))
                port = _remote(row, self.hosts[row.host], places[row.host].answers)
                self._ports.setdefault(row.host, []).append(port)
        for name, place in places.items() if everywhere else ():
            self.hosts.setdefault(name, IPv4Address(place.underlay or 0))

    def seen_from(self, host: HostName, at_least: int = 0) -> NetworkPeers:
        """What the host must know; nothing where it is alone, or not on the map."""
        others = sorted(self.hosts.keys() - {host}) if host in self.hosts else []
        return NetworkPeers(
            network=self.network,
            generation=max(self.generation, at_least),
            hosts=tuple(self.hosts[name] for name in others),
            ports=tuple(port for name in others for port in self._ports.get(name, ())),
            egress=self._led(host),
        )

    def _led(self, host: HostName) -> Egress | None:
        """How the host leads the network outside, if not under its own address."""
        if self._egress is None or host not in self.hosts:
            return None
        here, leader = self._egress.host == host, self._egress.host
        via = self.hosts.get(leader) if leader and not here else None
        return Egress(address=IPv4Address(self._egress.address), here=here, via=via)

    def digest_from(self, host: HostName) -> str:
        """The digest of `seen_from`, without making ten thousand ports for each of fifty hosts."""
        own, led = self._marks.get(host), self._led(host)
        if own is None:
            return NOBODY
        return digest_of((self._all, own) if led is None else (self._all, own, mark(led)))

    @cached_property
    def _marks(self) -> dict[HostName, int]:
        """Of each host, with its ports."""
        return {
            name: together((mark(address), *(port.mark for port in self._ports.get(name, ()))))
            for name, address in self.hosts.items()
        }

    @cached_property
    def _all(self) -> int:
        return together(self._marks.values())


NOBODY = digest_of(())


def maps(
    generation: int,
    attachments: Iterable[AttachmentRow],
    hosts: Iterable[HostRow],
    everywhere: Collection[NetworkId] = (),
    egress: Mapping[NetworkId, EgressRow] = MappingProxyType({}),
) -> dict[NetworkId, NetworkMap]:
    """A map of every network that somebody is on, or that leaves by an address of its own.

    Those that are `everywhere` are on all hosts.
    """
    by_network: dict[NetworkId, list[AttachmentRow]] = {network: [] for network in egress}
    for row in attachments:
        by_network.setdefault(row.network_id, []).append(row)
    places = {row.name: row for row in hosts}
    return {
        network: NetworkMap(
            network, generation, members, places, egress.get(network), everywhere=network in everywhere
        )
        for network, members in by_network.items()
    }


def _remote(row: AttachmentRow, underlay: IPv4Address, answers: bool) -> RemotePort:
    return RemotePort(
        id=row.id,
        replica=row.replica_id,
        address=IPv4Address(row.address),
        mac=row.mac,
        underlay=underlay,
        app=scope(row.app, row.guest),
        names=row.names,
        up=answers and row.runs,
        address6=None if row.address6 is None else IPv6Address(row.address6),
    )
