"""What the API answers: the public shape of every resource.

Shared by control (which makes them), the API (which sends them) and the command line (which shows them).
Times are RFC 3339 in UTC.  Fields are only ever added.
"""

from enum import StrEnum

import msgspec

from skep.model.ids import Bytes
from skep.model.spec import AppSpec


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Base of everything the API answers."""


class Accepted(View, frozen=True, kw_only=True):
    """Long work was accepted; follow the run.  `run` None: there was nothing to do."""

    run: str | None
    message: str = ""


class AppState(StrEnum):
    EMPTY = "empty"
    RUNNING = "running"
    """Every replica that should run does, and none is unhealthy."""
    PARTIAL = "partial"
    STOPPED = "stopped"
    CHANGING = "changing"


class AppView(View, frozen=True, kw_only=True):
    id: str
    name: str
    tenant: str
    state: AppState
    revision: int
    services: tuple[str, ...]
    replicas: int
    running: int
    finished: int = 0
    """Replicas whose one job is done, and that need not run."""
    urls: tuple[str, ...]
    created: str
    updated: str


class AppDetail(View, frozen=True, kw_only=True):
    app: AppView
    spec: AppSpec | None
    """The current release as it was applied; the contents of configs and secrets are left out."""
    replicas: "tuple[ReplicaView, ...]"
    virtual_ips: dict[str, tuple[str, ...]] = {}
    """Addresses of its services, one on each network."""


class ReleaseView(View, frozen=True, kw_only=True):
    id: str
    app: str
    revision: int
    created: str
    created_by: str
    current: bool
    services: tuple[str, ...]
    images: dict[str, str]
    """Image digest by service."""
    state: str = ""
    """pending, current, superseded, failed"""
    note: str = ""
    """Why it was made, in words."""
    changed: str = ""
    """How it differs from the one that was in force before it, in a line."""


class ReplicaView(View, frozen=True, kw_only=True):
    id: str
    app: str
    service: str
    name: str
    """`web-0`"""
    desired: str
    state: str
    """pending, created, running, restarting, exited, stopped"""
    health: str
    addresses: tuple[str, ...]
    mac: str
    virtual_ips: tuple[str, ...] = ()
    """The addresses of its service."""
    ports: tuple[str, ...]
    """`0.0.0.0:8080->80/tcp`"""
    image: str
    image_digest: str
    revision: int
    restarts: int
    exit_code: int | None
    oom_killed: bool
    error: str
    host: str
    started: str | None
    finished: str | None
    created: str


class UsageView(View, frozen=True, kw_only=True):
    replica: str
    cpu_seconds: float
    memory: Bytes
    memory_limit: Bytes | None
    pids: int
    disk: Bytes
    disk_size: Bytes


class Action(StrEnum):
    CREATE = "create"
    UPDATE = "update"
    RECREATE = "recreate"
    REMOVE = "remove"
    KEEP = "keep"


class PlanChange(View, frozen=True, kw_only=True):
    action: Action
    kind: str
    """network, disk, service, replica, port"""
    name: str
    reason: str = ""


class PlanView(View, frozen=True, kw_only=True):
    """What `apply` would do.  `keep` changes are listed so that nothing is left to guess."""

    app: str
    revision: int
    changes: tuple[PlanChange, ...]
    warnings: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        return all(change.action is Action.KEEP for change in self.changes)


class ImageView(View, frozen=True, kw_only=True):
    id: str
    reference: str
    digest: str
    size: Bytes
    created: str
    tenant: str | None
    """None: shared by the operator with everybody."""
    in_use: bool


class PruneView(View, frozen=True, kw_only=True):
    freed: Bytes


class DiskView(View, frozen=True, kw_only=True):
    id: str
    name: str
    kind: str
    size: Bytes
    used: Bytes
    app: str | None
    attached_to: tuple[str, ...]
    host: str
    created: str


class NetworkView(View, frozen=True, kw_only=True):
    """`owner` is a tenant: another one's network is shared, and `name` is what it is called here."""

    id: str
    name: str
    owner: str
    subnet: str
    gateway: str
    internal: bool
    ports: int
    created: str
    subnets: list[str] = []
    """All of them, the first too."""


class PortView(View, frozen=True, kw_only=True):
    id: str
    network: str
    replica: str
    address: str
    mac: str
    address6: str = ""
    """Of IPv6, where the network has it."""


class ReservationView(View, frozen=True, kw_only=True):
    """`addresses` is one, or a range with both its ends: `10.1.0.10-10.1.0.19`."""

    addresses: str
    purpose: str
    created: str


class EgressView(View, frozen=True, kw_only=True):
    """An address by which a network leaves to the outside.

    `tenant`: whose networks may have it; "": anybody's.  `network` has it, and `host` leads its traffic
    outside; "" where none does.
    """

    address: str
    zone: str
    tenant: str = ""
    network: str = ""
    host: str = ""
    created: str


class ShareView(View, frozen=True, kw_only=True):
    """A network of `owner` that `tenant` may plug into once it has `accepted`.

    `network` is what it is called here: by its owner, or by who accepted it (till then `OWNER/NETWORK`).
    """

    network: str
    owner: str
    tenant: str
    accepted: bool
    created: str


class AddressView(View, frozen=True, kw_only=True):
    """Who has an address of a network.  Of another tenant's replica, no more than where it is talked to."""

    address: str
    names: tuple[str, ...]
    tenant: str
    replica: str = ""
    host: str = ""
    address6: str = ""


class SubnetView(View, frozen=True, kw_only=True):
    """A range of a network's addresses; how full it is is for the owner only."""

    subnet: str
    gateway: str
    used: int | None = None
    reserved: int | None = None
    free: int | None = None


class NetworkDetail(View, frozen=True, kw_only=True):
    """What there is to know of a network; counts and reservations are for its owner only."""

    name: str
    owner: str
    subnet: str
    gateway: str
    internal: bool
    created: str
    ports: list[AddressView]
    subnets: list[SubnetView] = []
    """All of them, in the order in which they are filled."""
    used: int | None = None
    reserved: int | None = None
    free: int | None = None
    reservations: list[ReservationView] = []
    shares: list[ShareView] = []
    egress: EgressView | None = None


class GroupRuleView(View, frozen=True, kw_only=True):
    """Whom it admits: `cidr`, the members of `group`, or, with neither, anybody; `ports` empty: all."""

    id: str
    direction: str
    protocol: str
    ports: str
    cidr: str
    group: str


class SecurityGroupView(View, frozen=True, kw_only=True):
    """`services`: how many are in it."""

    id: str
    name: str
    description: str
    rules: tuple[GroupRuleView, ...]
    services: int
    created: str
    changed: str
    changed_by: str


class PlaceView(View, frozen=True, kw_only=True):
    """A port and where it is.  `host_state` as hosts are listed; `up`: its names resolve.

    `egress`: the address by which it leaves to the outside, with the host that leads it there.
    Or the address of a service, `app/service`, which is on every host; `leads_to`: who gets new connections.
    """

    network: str
    address: str
    replica: str
    host: str
    host_state: str
    up: bool
    address6: str = ""
    egress: str = ""
    leads_to: tuple[str, ...] = ()


class HopView(View, frozen=True, kw_only=True):
    """Something a packet passes, or what stops it there."""

    at: str
    what: str
    passes: bool


class TraceView(View, frozen=True, kw_only=True):
    """Whether a replica reaches another, as far as skep can tell: what the target listens on it cannot."""

    source: str
    target: str
    reachable: bool
    hops: list[HopView]


class HostView(View, frozen=True, kw_only=True):
    """`state`: joining, ready, cordoned, draining, lost or gone; `seen`: its last sign of life."""

    name: str
    zone: str
    region: str
    pool: str
    cpus: int
    memory: Bytes
    kernel: str
    cgroups: str
    state: str
    replicas: int
    pool_total: Bytes
    pool_used: Bytes
    labels: dict[str, str]
    cpu_overcommit: float
    memory_overcommit: float
    address: str
    underlay: str
    version: str
    seen: str | None


class HostDetail(View, frozen=True, kw_only=True):
    """`replicas` as `shop/web-0`; `disks` are data disks by name.

    `staying`: of a host that is being emptied, why they are still there.
    """

    host: HostView
    replicas: tuple[str, ...]
    disks: tuple[str, ...]
    staying: "tuple[StayingView, ...]" = ()


class StayingView(View, frozen=True, kw_only=True):
    """`waits`: it goes by itself as soon as it can; otherwise somebody must act."""

    replica: str
    reason: str
    waits: bool = False


class DrainView(View, frozen=True, kw_only=True):
    """`runs` move what can go; what stays says why."""

    host: str
    runs: tuple[str, ...]
    staying: tuple[StayingView, ...]


class PoolView(View, frozen=True, kw_only=True):
    """`tenant`: the only one who may use it; None: everybody."""

    name: str
    zone: str
    hosts: int
    cpu_overcommit: float
    memory_overcommit: float
    tenant: str | None
    labels: dict[str, str]


class ZoneView(View, frozen=True, kw_only=True):
    name: str
    region: str
    hosts: int


class TenantView(View, frozen=True, kw_only=True):
    id: str
    name: str
    created: str
    quota: "Quota"


class Quota(View, frozen=True, kw_only=True):
    """Upper bounds of one tenant."""

    apps: int = 100
    replicas: int = 500
    cpus: float = 256.0
    memory: Bytes = Bytes(256 * 1024**3)
    disk: Bytes = Bytes(1024**4)
    published_ports: int = 200


class UserView(View, frozen=True, kw_only=True):
    id: str
    name: str
    tenant: str
    role: str
    created: str


class TokenView(View, frozen=True, kw_only=True):
    id: str
    name: str
    user: str
    created: str
    expires: str | None
    last_used: str | None


class TokenCreated(View, frozen=True, kw_only=True):
    """The only time the secret is shown."""

    token: TokenView
    secret: str


class WhoAmI(View, frozen=True, kw_only=True):
    user: str
    role: str
    tenant: str


class StepView(View, frozen=True, kw_only=True):
    name: str
    use: str
    state: str
    after: tuple[str, ...]
    attempts: int
    started: str | None
    finished: str | None
    message: str = ""
    """The last progress line, or the error."""
    queued: float | None = None
    """Seconds from when nothing that it comes after was left until it was started."""
    ran: float | None = None
    """Seconds, tries and pauses between them included; of one that goes on, until now."""
    items: dict[str, int] = {}
    """Of a fan-out that is folded: how many of its items are in which state."""


class RunView(View, frozen=True, kw_only=True):
    id: str
    flow: str
    title: str
    tenant: str
    state: str
    """pending, running, waiting, paused, succeeded, failed (undone), cancelled, undoing, needs-operator"""
    done: int
    total: int
    error: str
    created: str
    started: str | None
    finished: str | None
    output: dict[str, object] = {}
    priority: str = "normal"
    """urgent, high, normal, low, bulk"""
    worker: str = ""
    """Who carries it out; "" is nobody now."""
    deadline: str | None = None
    parent: str = ""
    """The run that this one does again, or ""."""
    labels: dict[str, str] = {}
    archived: bool = False


class RunDetail(View, frozen=True, kw_only=True):
    run: RunView
    steps: tuple[StepView, ...]


class RunEventView(View, frozen=True, kw_only=True):
    """One line of a run's history, as `GET /v1/runs/{id}/events` streams it."""

    sequence: int
    run: str
    step: str
    kind: str
    """started, progress, succeeded, failed, retrying, undoing, undone, run-… for the run itself"""
    at: str
    message: str = ""


class EventView(View, frozen=True, kw_only=True):
    """A change of state in the cloud, as `GET /v1/events` streams it."""

    kind: str
    """replica, app, run"""
    app: str
    name: str
    state: str
    at: str
    message: str = ""


class LogView(View, frozen=True, kw_only=True):
    """One line that the replica wrote; `time` has nanoseconds, `stream` is stdout or stderr."""

    replica: str
    time: str
    stream: str
    text: str


class VersionView(View, frozen=True, kw_only=True):
    version: str
    api: str = "v1"


class EndpointTrafficView(View, frozen=True, kw_only=True):
    """What all hosts counted of one revision; `response_time` in milliseconds, on average of late."""

    revision: int
    requests: int
    client_errors: int
    server_errors: int
    connection_errors: int
    sessions: int
    response_time: float


class EndpointView(View, frozen=True, kw_only=True):
    """`replicas` are those that answer now; `trouble` says which hosts do not serve it, and why."""

    id: str
    app: str
    service: str
    url: str
    host: str
    path: str
    port: int
    tls: str
    sticky: bool
    rate: int | None
    max_connections: int | None
    replicas: tuple[str, ...]
    traffic: tuple[EndpointTrafficView, ...]
    trouble: str
    created: str


class AccessView(View, frozen=True, kw_only=True):
    """A request for an endpoint that was answered; `replica` empty: by the edge itself."""

    time: str
    endpoint: str
    client: str
    method: str
    url: str
    status: int
    milliseconds: int
    size: int
    replica: str
    revision: int


class CertificateView(View, frozen=True, kw_only=True):
    """A certificate for endpoints; `names` are those it is good for, `endpoints` how many name it."""

    id: str
    name: str
    names: tuple[str, ...]
    issuer: str
    endpoints: int
    created: str
    expires: str


class QueueView(View, frozen=True, kw_only=True):
    """`waiting`: messages that are with no server yet.  `servers`: processes that take them."""

    key: str
    waiting: int
    servers: int


class DeadLetterView(View, frozen=True, kw_only=True):
    """A call that was tried too often: to whom, what, and when it was given up."""

    id: str
    key: str
    method: str
    at: str


class AuthorityView(View, frozen=True, kw_only=True):
    """Who certifies the processes of the installation.

    `fingerprint` is what `skep agent join --ca` pins; `certificates` are PEM, the one that signs comes first.
    """

    fingerprint: str
    certificates: str


class JoinTokenView(View, frozen=True, kw_only=True):
    """What a new host shows once.  `host` None: it brings its own name.  `state`: waiting, used, expired."""

    id: str
    host: str | None
    zone: str
    pool: str | None
    state: str
    created: str
    created_by: str
    expires: str
    used: str | None


class JoinTokenCreated(View, frozen=True, kw_only=True):
    """`secret` is shown only now.  `url`: where the host finds the API; `authority`: the fingerprint to pin.

    `system_ca`: the API's own certificate is the operator's, to be checked by the system's authorities.
    """

    token: JoinTokenView
    secret: str
    url: str
    authority: str
    system_ca: bool = False


class HostJoined(View, frozen=True, kw_only=True):
    """What a host needs to be one of the installation's.  `certificates`: the authority's, PEM."""

    host: str
    zone: str
    pool: str | None
    certificate: str
    certificates: str
    expires: str
    bus: str
    own_account: bool = False
    """On the bus: it is of this host alone, and has few rights."""


class Belonging(View, frozen=True, kw_only=True):
    """Whether a host is one of the installation; one that is not should take down what it runs."""

    belongs: bool


class CertificateRenewed(View, frozen=True, kw_only=True):
    """The new certificate of a host, the authority's certificates (PEM), and where the bus is by now."""

    certificate: str
    certificates: str
    expires: str
    bus: str
    own_account: bool = False
