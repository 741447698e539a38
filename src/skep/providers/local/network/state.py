"""What the fabric was told, kept in DATA/network/*.json so that it outlives skep and the machine's boots.

One file per thing, replaced whole.  A record is written before the kernel is changed and removed after it, so
nothing in the kernel is without a record.  Nobody waits for the disk: a power cut that loses a record loses
what it speaks of too, and control makes it anew.  For the same reason a damaged record is as good as none.
"""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

from skep.model.errors import InvalidInput
from skep.model.host import (
    NetworkConfig,
    NetworkGuards,
    NetworkPeers,
    NetworkVirtualIps,
    PeersInForce,
    PortConfig,
    ServicePublications,
    in_force,
)
from skep.model.ids import NetworkId, PortId, ReplicaId, ServiceId
from skep.providers.local.network.namespaces import Namespaces
from skep.providers.local.network.rules.publications import Route

log = structlog.get_logger()

R = TypeVar("R", bound=msgspec.Struct)
A = TypeVar("A", IPv4Address, IPv4Network, IPv6Address, IPv6Network)

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


class SandboxRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A replica's sandbox with its ports.  `resolvable` is the boot during which its names resolve, or ""."""

    replica: ReplicaId
    ports: tuple[PortConfig, ...] = ()
    resolvable: str = ""


class ServiceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`link_ports` belong to the publications, one by one."""

    publications: ServicePublications
    link_ports: tuple[int, ...]

    def routes(self) -> list[Route]:
        pairs = zip(self.publications.publications, self.link_ports, strict=True)
        return [Route(publication, port) for publication, port in pairs]


class HostRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What teardown puts back: forwarding as it was before the first start, egress addresses held.

    `ipv6_forward` is empty while no network here has IPv6.  A host that forwards hears router advertisements
    only from interfaces that are told to all the same: `accept_ra` names those.
    """

    ip_forward: str
    egress: tuple[IPv4Address, ...] = ()
    ipv6_forward: str = ""
    accept_ra: tuple[str, ...] = ()


class State:
    """All records, in memory and on disk.  The event loop alone changes the memory; files go by a thread."""

    def __init__(self, data: Path, namespaces: Namespaces, boot: str = "") -> None:
        self.boot = boot
        self.directory = data / "network"
        self.networks: dict[NetworkId, NetworkConfig] = {}
        self.peers: dict[NetworkId, NetworkPeers] = {}
        self.guards: dict[NetworkId, NetworkGuards] = {}
        self.virtual_ips: dict[NetworkId, NetworkVirtualIps] = {}
        self.sandboxes: dict[ReplicaId, SandboxRecord] = {}
        self.services: dict[ServiceId, ServiceRecord] = {}
        self.host: HostRecord | None = None
        self.ways: dict[NetworkId, dict[tuple[IPv4Address, int], int]] = {}
        """Of the edge (`edge_ways.py`): link ports by address and port; the kernel keeps them."""
        self._digests: dict[NetworkId, str] = {}
        self._owners: dict[PortId, ReplicaId] = {}
        self._namespaces = namespaces

    async def load(self) -> None:
        """Read what an earlier process was told."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        read = self._namespaces.on_host
        self.networks = {n.id: n for n in await read(lambda: self._all("network", NetworkConfig))}
        self.peers = {p.network: p for p in await read(lambda: self._all("peers", NetworkPeers))}
        self.guards = {g.network: g for g in await read(lambda: self._all("guards", NetworkGuards))}
        told = await read(lambda: self._all("virtual_ips", NetworkVirtualIps))
        self.virtual_ips = {one.network: one for one in told}
        self.services = {
            s.publications.service: s for s in await read(lambda: self._all("service", ServiceRecord))
        }
        self.host = next(iter(await read(lambda: self._all("host", HostRecord))), None)
        for sandbox in await read(lambda: self._all("sandbox", SandboxRecord)):
            self._know(sandbox)

    def owner(self, port: PortId) -> ReplicaId | None:
        return self._owners.get(port)

    def resolves(self, replica: ReplicaId) -> bool:
        """Whether the replica was said to be up since this boot."""
        record = self.sandboxes.get(replica)
        return record is not None and record.resolvable == self.boot

    def ports_on(self, network: NetworkId) -> list[PortConfig]:
        return [
            port for record in self.sandboxes.values() for port in record.ports if port.network == network
        ]

    def routes_to(self, network: NetworkId) -> list[Route]:
        return [route for route in self.routes() if route.publication.network == network]

    def routes(self) -> list[Route]:
        return [route for record in self.services.values() for route in record.routes()]

    def peers_in_force(self) -> dict[NetworkId, PeersInForce]:
        for network, known in self.peers.items():
            if network not in self._digests:
                self._digests[network] = known.digest
        return {
            network: PeersInForce(generation=known.generation, digest=self._digests[network])
            for network, known in self.peers.items()
        }

    def guards_in_force(self) -> dict[NetworkId, PeersInForce]:
        return in_force(self.guards)

    def virtual_ips_in_force(self) -> dict[NetworkId, PeersInForce]:
        return in_force(self.virtual_ips)

    async def save_network(self, record: NetworkConfig) -> None:
        await self._write("network", record.id, record)
        self.networks[record.id] = record

    async def save_peers(self, record: NetworkPeers) -> None:
        await self._write("peers", record.network, record)
        self.peers[record.network] = record
        self._digests.pop(record.network, None)

    async def save_guards(self, record: NetworkGuards) -> None:
        await self._write("guards", record.network, record)
        self.guards[record.network] = record

    async def save_virtual_ips(self, record: NetworkVirtualIps) -> None:
        await self._write("virtual_ips", record.network, record)
        self.virtual_ips[record.network] = record

    async def save_sandbox(self, record: SandboxRecord) -> None:
        await self._write("sandbox", record.replica, record)
        self._know(record)

    async def save_service(self, record: ServiceRecord) -> None:
        await self._write("service", record.publications.service, record)
        self.services[record.publications.service] = record

    async def save_host(self, record: HostRecord) -> None:
        await self._write("host", "host", record)
        self.host = record

    async def drop_network(self, network: NetworkId) -> None:
        await self._remove("peers", network)
        self.peers.pop(network, None)
        self._digests.pop(network, None)
        await self._remove("guards", network)
        self.guards.pop(network, None)
        await self._remove("virtual_ips", network)
        self.virtual_ips.pop(network, None)
        await self._remove("network", network)
        self.networks.pop(network, None)
        self.ways.pop(network, None)

    async def drop_sandbox(self, replica: ReplicaId) -> None:
        await self._remove("sandbox", replica)
        self._know(SandboxRecord(replica=replica))
        self.sandboxes.pop(replica, None)

    async def drop_service(self, service: ServiceId) -> None:
        await self._remove("service", service)
        self.services.pop(service, None)

    def _know(self, record: SandboxRecord) -> None:
        before = self.sandboxes.get(record.replica)
        for port in before.ports if before else ():
            self._owners.pop(port.id, None)
        self._owners |= {port.id: record.replica for port in record.ports}
        self.sandboxes[record.replica] = record

    def _all(self, kind: str, record: type[R]) -> list[R]:
        found = [_decode(path, record) for path in sorted(self.directory.glob(f"{kind}-*.json"))]
        return [one for one in found if one is not None]

    def _path(self, kind: str, identifier: str) -> Path:
        if not _ID.fullmatch(identifier):
            raise InvalidInput(f"{identifier[:100]!r} is not an id.")
        return self.directory / f"{kind}-{identifier}.json"

    async def _write(self, kind: str, identifier: str, record: msgspec.Struct) -> None:
        path, content = self._path(kind, identifier), msgspec.json.encode(record, enc_hook=str)
        await self._namespaces.on_host(lambda: _replace(path, content))

    async def _remove(self, kind: str, identifier: str) -> None:
        path = self._path(kind, identifier)
        await self._namespaces.on_host(lambda: _unlink(path))


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.rename(path)


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


def _address(kind: type[A], text: str) -> A:
    """IP addresses and networks, which msgspec leaves to us."""
    return kind(text)


def _decode(path: Path, record: type[R]) -> R | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=record, dec_hook=_address)
    except msgspec.DecodeError as error:
        log.warning("network.record_damaged", path=str(path), error=str(error))
        path.unlink()
        return None
