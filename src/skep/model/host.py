"""What a host is told to make true, and what it says is true.

Control computes these from releases; the agent and the providers carry them out.  All ids are control's.
"""

import functools
import hashlib
import operator
from collections.abc import Iterable, Mapping
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import msgspec

from skep.model.errors import Stale
from skep.model.groups import GroupRule
from skep.model.ids import (
    Bytes,
    ContainerId,
    Digest,
    DiskId,
    GroupId,
    NetworkId,
    PortId,
    ReplicaId,
    Seconds,
    ServiceId,
    TenantId,
)
from skep.model.placement import Constraint, Priority
from skep.model.spec import HealthCheck, RestartPolicy, Ulimit

LINK6_BITS = 112


K = TypeVar("K")


class HostStruct(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of the values that travel between control and hosts."""


class DiskSpec(HostStruct, frozen=True, kw_only=True):
    """A disk of the pool: `system` disks hold an overlay's upper directory, `data` disks a volume."""

    id: DiskId
    size: Bytes
    kind: Literal["system", "data"]
    tenant: TenantId = TenantId("")
    """Whose it is; empty: a control of the release before does not say."""


class HostSubnet(HostStruct, frozen=True, kw_only=True):
    """One more range of a network's IPv4 addresses, with the gateway for those who live in it."""

    cidr: IPv4Network
    gateway: IPv4Address


class HostSubnet6(HostStruct, frozen=True, kw_only=True):
    """The IPv6 addresses of a network.

    Of a subnet the first 65,536 are on the `link`: whoever is looked for there takes a place in the table of
    neighbours, which all namespaces of a machine share.
    """

    cidr: IPv6Network
    gateway: IPv6Address

    @property
    def link(self) -> IPv6Network:
        return IPv6Network((self.cidr.network_address, max(self.cidr.prefixlen, LINK6_BITS)))


class NetworkConfig(HostStruct, frozen=True, kw_only=True):
    """A tenant's layer-2 network.  `gateway` answers on every host and resolves names there.

    `index` is unique per host (1 to 16383) and decides the link addresses between host and network.
    `internal` networks have no way out.  `more` subnets may join while the network is in use; all of them
    are on one layer 2.  With `ipv6` it has both families; that may join, too.
    """

    id: NetworkId
    tenant: TenantId
    name: str
    subnet: IPv4Network
    gateway: IPv4Address
    index: int
    internal: bool = False
    more: tuple[HostSubnet, ...] = ()
    ipv6: HostSubnet6 | None = None

    @property
    def subnets(self) -> tuple[HostSubnet, ...]:
        return (HostSubnet(cidr=self.subnet, gateway=self.gateway), *self.more)

    def home(self, address: IPv4Address) -> HostSubnet | None:
        """The subnet that the address is in."""
        return next((one for one in self.subnets if address in one.cidr), None)

    def fits(self, address: IPv4Address) -> bool:
        """Whether a port may have the address."""
        return self.home(address) is not None and all(address != one.gateway for one in self.subnets)

    def fits6(self, address: IPv6Address) -> bool:
        return self.ipv6 is not None and address in self.ipv6.link and address != self.ipv6.gateway


class PortConfig(HostStruct, frozen=True, kw_only=True):
    """A NIC of a replica: it keeps address and MAC wherever the replica runs.

    `names` are what the resolver of the network answers with this address.  The first name of each kind
    comes without the app; the resolver adds the app for callers from other apps (`db` and `db.shop`).
    `interface` is the name inside the container; the port with `default_route` gives the way out.
    """

    id: PortId
    network: NetworkId
    replica: ReplicaId
    address: IPv4Address
    mac: str
    app: str
    names: tuple[str, ...] = ()
    interface: str = "eth0"
    default_route: bool = True
    address6: IPv6Address | None = None


class RemotePort(HostStruct, frozen=True, kw_only=True):
    """A port of the network that is plugged on another host, the one with the address `underlay`.

    Its names resolve while it is `up`.
    """

    id: PortId
    replica: ReplicaId
    address: IPv4Address
    mac: str
    underlay: IPv4Address
    app: str = ""
    names: tuple[str, ...] = ()
    up: bool = False
    address6: IPv6Address | None = None

    @property
    def mark(self) -> int:
        return mark(self)


class Egress(HostStruct, frozen=True, kw_only=True):
    """The address by which a network leaves to the outside, seen from one host.

    `here`: this host has it; `via`: the host with that underlay address has it, and all that leaves goes
    there.  Neither: nobody has it now, and nothing leaves.
    """

    address: IPv4Address
    here: bool = False
    via: IPv4Address | None = None


class NetworkPeers(HostStruct, frozen=True, kw_only=True):
    """Where the rest of a network is, seen from one host: all of it, as of `generation`.

    `hosts` are the underlay addresses of the other hosts that have the network, with ports or without.
    Without an `egress` every host leads outside under its own address.
    """

    network: NetworkId
    generation: int
    hosts: tuple[IPv4Address, ...] = ()
    ports: tuple[RemotePort, ...] = ()
    egress: Egress | None = None

    @property
    def digest(self) -> str:
        """Equal for equal hosts, ports and egress, in whatever order, whatever the generation."""
        others = (*map(mark, self.hosts), *(port.mark for port in self.ports))
        return digest_of(others if self.egress is None else (*others, mark(self.egress)))


class PeersInForce(HostStruct, frozen=True, kw_only=True):
    """What a host was told of one network: when, and what in one word."""

    generation: int
    digest: str


class Told(Protocol):
    """Something that a host was told as a whole, as of a generation."""

    @property
    def generation(self) -> int: ...
    @property
    def digest(self) -> str: ...


def in_force(told: Mapping[K, Told]) -> dict[K, PeersInForce]:
    """What a host answers about it."""
    return {
        key: PeersInForce(generation=known.generation, digest=known.digest) for key, known in told.items()
    }


def must_be_news(what: str, told: Told, before: Told | None) -> None:
    """The same generation again is none, and does no harm.  Raises Stale: a younger one is in force."""
    if before is not None and told.generation < before.generation:
        raise Stale(
            f"Generation {told.generation} of {what} is older than {before.generation}, which is in force."
        )


def digest_of(marks: Iterable[int]) -> str:
    """Of marks in whatever order: those of many ports can be put together before."""
    return f"{together(marks):032x}"


def together(marks: Iterable[int]) -> int:
    return functools.reduce(operator.xor, marks, 0)


def mark(value: RemotePort | IPv4Address | Egress) -> int:
    text = msgspec.json.encode(value, enc_hook=str)
    return int.from_bytes(hashlib.blake2b(text, digest_size=16).digest())


class GroupPolicy(HostStruct, frozen=True, kw_only=True):
    """A security group on one network.  `rules` name other groups by their ids; `members` are addresses.

    A host is told the rules of the groups its ports are in, and the members of those that these rules name.
    """

    id: GroupId
    rules: tuple[GroupRule, ...] = ()
    members: tuple[IPv4Address, ...] = ()
    members6: tuple[IPv6Address, ...] = ()


class GuardedPort(HostStruct, frozen=True, kw_only=True):
    """An address of the host's own on the network, and the groups that decide what passes there."""

    address: IPv4Address
    groups: tuple[GroupId, ...]
    address6: IPv6Address | None = None


class NetworkGuards(HostStruct, frozen=True, kw_only=True):
    """Which ports of one host are guarded on a network, by what: all of it, as of `generation`."""

    network: NetworkId
    generation: int
    ports: tuple[GuardedPort, ...] = ()
    groups: tuple[GroupPolicy, ...] = ()

    @property
    def digest(self) -> str:
        """Equal for equal guards, whatever the generation."""
        text = msgspec.json.encode((self.ports, self.groups), enc_hook=str)
        return hashlib.blake2b(text, digest_size=16).hexdigest()


class Backend(HostStruct, frozen=True, kw_only=True):
    """A replica behind a virtual IP.

    `weight` is its share of new connections, 0 to 256: with 0 it gets none, and keeps those it has.
    """

    address: IPv4Address
    weight: int = 100


class VirtualIp(HostStruct, frozen=True, kw_only=True):
    """The address of a service on a network, whoever its replicas are.

    `names` resolve to it as names of `app`, and no more to the replicas; the first is the service's own.
    `ports` are those that the service is known to listen on; it may listen on others.
    """

    service: ServiceId
    address: IPv4Address
    app: str
    names: tuple[str, ...] = ()
    backends: tuple[Backend, ...] = ()
    ports: tuple[tuple[int, Literal["tcp", "udp"]], ...] = ()


class NetworkVirtualIps(HostStruct, frozen=True, kw_only=True):
    """Where the connections to the services of a network are led: all of it, as of `generation`."""

    network: NetworkId
    generation: int
    virtual_ips: tuple[VirtualIp, ...] = ()

    @property
    def digest(self) -> str:
        """Equal for equal virtual IPs, whatever the generation."""
        text = msgspec.json.encode(self.virtual_ips, enc_hook=str)
        return hashlib.blake2b(text, digest_size=16).hexdigest()


class Publication(HostStruct, frozen=True, kw_only=True):
    """A port of the host that leads to a service; new connections are spread over the targets."""

    host_ip: str
    published: int
    protocol: Literal["tcp", "udp"]
    network: NetworkId
    target: int
    addresses: tuple[IPv4Address, ...]
    addresses6: tuple[IPv6Address, ...] = ()


class ServicePublications(HostStruct, frozen=True, kw_only=True):
    """All that a service publishes on a host, as of `generation`; 0: when the rows were read is not said."""

    service: ServiceId
    publications: tuple[Publication, ...]
    generation: int = 0


class ContainerMount(HostStruct, frozen=True, kw_only=True):
    """A mount with its source resolved: exactly one of `disk`, `path`, or neither (tmpfs)."""

    target: str
    disk: DiskId | None = None
    path: Path | None = None
    read_only: bool = False
    copy_up: bool = False
    """An empty data disk first receives what the image has at `target` (Compose: unless `nocopy`)."""
    size: Bytes | None = None
    mode: int | None = None
    create_host_path: bool = False


class ContainerFile(HostStruct, frozen=True, kw_only=True):
    """A config or secret as a file.  The agent asks control for the content by its digest.

    Secrets live in memory (tmpfs) on the host and never on its disks.
    """

    target: str
    digest: str
    secret: bool
    uid: int = 0
    gid: int = 0
    mode: int = 0o444


class FixedAddress(HostStruct, frozen=True, kw_only=True):
    """What a container in a cluster has, and no other pod; one of them at least."""

    address: IPv4Address | None = None
    address6: IPv6Address | None = None
    mac: str | None = None


class NodePlacement(HostStruct, frozen=True, kw_only=True):
    """What the nodes of a cluster decide, as its service asks; a host that is one machine is told nothing.

    `spread` as in `Placement`.  `alone`: at most one replica of the service on a node.  `pack`: rather where
    others of it are.
    """

    constraints: tuple[Constraint, ...] = ()
    spread: tuple[str, ...] = ()
    alone: bool = False
    pack: bool = False


class ContainerSpec(HostStruct, frozen=True, kw_only=True):
    """One container, complete: with the image's config merged in, ready to become an OCI bundle.

    The id changes with every re-creation of the replica; the network sandbox and data disks are the
    replica's and stay.  `args` is entrypoint + command.
    """

    id: ContainerId
    replica: ReplicaId
    tenant: TenantId
    name: str
    """What people see, unique per tenant: `shop/web-0`."""
    hostname: str
    image: Digest
    args: tuple[str, ...]
    environment: dict[str, str]
    working_dir: str
    user: str
    """As in the image config: `user`, `uid`, `user:group`, `uid:gid`; resolved inside the image."""
    system_disk: DiskId
    group_add: tuple[str, ...] = ()
    mounts: tuple[ContainerMount, ...] = ()
    files: tuple[ContainerFile, ...] = ()
    ports: tuple[PortId, ...] = ()
    nameserver: IPv4Address | None = None
    fixed: FixedAddress | None = None
    """In a cluster, whose networks give pods addresses themselves; on machines ports have theirs."""
    networks: dict[NetworkId, bool] = {}
    """In a cluster: those of its ports, each with whether it gives the way out; on machines ports say so."""
    extra_hosts: dict[str, str] = {}
    memory: Bytes | None = None
    memory_reservation: Bytes | None = None
    cpus: float | None = None
    pids: int = 4096
    ulimits: dict[str, Ulimit] = {}
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    sysctls: dict[str, str] = {}
    read_only: bool = False
    init: bool = False
    tty: bool = False
    stdin_open: bool = False
    shm_size: Bytes = Bytes(64 * 1024 * 1024)
    stop_signal: str = "SIGTERM"
    stop_grace_period: Seconds = Seconds(10.0)
    restart: RestartPolicy = RestartPolicy()
    healthcheck: HealthCheck | None = None
    labels: dict[str, str] = {}
    placement: NodePlacement | None = None
    priority: Priority = Priority.NORMAL


class ContainerState(StrEnum):
    CREATED = "created"
    RUNNING = "running"
    RESTARTING = "restarting"
    """Exited; the restart policy will start it again at the end of its back-off."""
    EXITED = "exited"
    """Exited and the policy leaves it so, or it was stopped on request."""


class Health(StrEnum):
    NONE = "none"
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class ContainerStatus(HostStruct, frozen=True, kw_only=True):
    """What a host knows about one container.  Times are seconds since 1970."""

    id: ContainerId
    replica: ReplicaId
    state: ContainerState
    health: Health = Health.NONE
    health_output: str = ""
    pid: int | None = None
    exit_code: int | None = None
    oom_killed: bool = False
    error: str = ""
    restarts: int = 0
    started_at: float | None = None
    finished_at: float | None = None
    address: str = ""
    """Where it is in its network, if that is not the address of its port."""
    node: str = ""
    """Address of the machine that it runs on, if its host is several."""


class ContainerUsage(HostStruct, frozen=True, kw_only=True):
    """CPU seconds since start, memory now and limit, processes now; disk bytes of the system disk."""

    cpu_seconds: float
    memory: Bytes
    memory_limit: Bytes | None
    pids: int


class LogLine(HostStruct, frozen=True, kw_only=True):
    time: str
    """RFC 3339 with nanoseconds, as conmon writes it."""
    stream: Literal["stdout", "stderr"]
    text: str


class ExecSpec(HostStruct, frozen=True, kw_only=True):
    args: tuple[str, ...]
    tty: bool = False
    stdin: bool = False
    environment: dict[str, str] = {}
    working_dir: str | None = None
    user: str | None = None
    columns: int = 80
    rows: int = 24


class DiskUsage(HostStruct, frozen=True, kw_only=True):
    size: Bytes
    used: Bytes
    kind: Literal["system", "data"]


class PoolUsage(HostStruct, frozen=True, kw_only=True):
    total: Bytes
    used: Bytes
    free: Bytes


class HostFacts(HostStruct, frozen=True, kw_only=True):
    """What a host is: read once at its start."""

    cpus: int
    memory: Bytes
    kernel: str
    cgroups: Literal["v1", "v2", "hybrid", "unknown"]
    """`unknown`: it is a cluster, of many machines."""
    boot_id: str
    """Changes with every boot of the machine (/proc/sys/kernel/random/boot_id)."""
