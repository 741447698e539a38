"""What a tenant wants: the desired state of an app, as the API takes it.

`skep.compose` makes an AppSpec from a Compose file; control checks it again, since any client may send one.
Times are seconds, sizes are bytes.  Field names follow the Compose Specification
(https://github.com/compose-spec/compose-spec) where it has a word for the thing.
"""

from typing import Annotated, Literal

import msgspec

from skep.model.names import AppName, ServiceName
from skep.model.placement import Priority

PortNumber = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Count = Annotated[int, msgspec.Meta(ge=0, le=10_000)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Duration = Annotated[float, msgspec.Meta(ge=0, le=86_400 * 30)]


class Spec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of all specifications: immutable values that compare by content."""


class PublishedPort(Spec, frozen=True, kw_only=True):
    """A port of the service that can be reached from outside through the host.

    `published` None lets skep choose a free one.
    """

    target: PortNumber
    published: PortNumber | None = None
    protocol: Literal["tcp", "udp"] = "tcp"
    host_ip: str = "0.0.0.0"  # noqa: S104 - what Compose means by a bare port


class Mount(Spec, frozen=True, kw_only=True):
    """Something mounted into the container at `target` (absolute path).

    volume: `source` names a volume of the app (empty: anonymous, one per replica).
    bind: `source` is an absolute path on the host; admins only.  tmpfs: `size` limits it.
    """

    type: Literal["volume", "bind", "tmpfs"]
    target: str
    source: str = ""
    read_only: bool = False
    nocopy: bool = False
    size: Positive | None = None
    mode: int | None = None
    create_host_path: bool = False


class FileMount(Spec, frozen=True, kw_only=True):
    """A config or secret of the app shown as a read-only file at `target` (absolute path)."""

    source: str
    target: str
    uid: int = 0
    gid: int = 0
    mode: int = 0o444


class NetworkAttachment(Spec, frozen=True, kw_only=True):
    """The service's place in one of the app's networks."""

    aliases: tuple[str, ...] = ()
    ipv4_address: str | None = None
    ipv6_address: str | None = None
    mac_address: str | None = None
    priority: int = 0

    @property
    def is_fixed(self) -> bool:
        """Whether it asks for an address that only one replica can have."""
        return bool(self.ipv4_address or self.ipv6_address or self.mac_address)


class Dependency(Spec, frozen=True, kw_only=True):
    condition: Literal["service_started", "service_healthy", "service_completed_successfully"] = (
        "service_started"
    )
    required: bool = True
    restart: bool = False


class HealthCheck(Spec, frozen=True, kw_only=True):
    """A command run in the container; exit code 0 is healthy.

    `test` as in Compose: ["CMD", …], ["CMD-SHELL", text]; ["NONE"] switches off what the image declares.
    """

    test: tuple[str, ...]
    interval: Duration = 30.0
    timeout: Duration = 30.0
    retries: Positive = 3
    start_period: Duration = 0.0
    start_interval: Duration = 5.0

    @property
    def program(self) -> tuple[str, ...] | None:
        """What to run; None when health is not checked."""
        match self.test:
            case ("CMD", *args) if args:
                return tuple(args)
            case ("CMD-SHELL", text):
                return ("/bin/sh", "-c", text)
            case _:
                return None


class RestartPolicy(Spec, frozen=True, kw_only=True):
    """When an exited container is started again; `max_attempts` None means for ever.

    Back-off between attempts starts at `delay` and doubles; it is reset after ten seconds of running
    (as the Docker engine does).
    """

    condition: Literal["no", "on-failure", "always", "unless-stopped"] = "unless-stopped"
    max_attempts: Positive | None = None
    delay: Duration = 0.1
    window: Duration = 10.0

    @property
    def endless(self) -> bool:
        """Nothing that it ends with is the end."""
        return self.condition in ("always", "unless-stopped") and self.max_attempts is None


class Resources(Spec, frozen=True, kw_only=True):
    """Limits of one replica; None takes the tenant's default."""

    cpus: Annotated[float, msgspec.Meta(gt=0, le=1024)] | None = None
    memory: Annotated[int, msgspec.Meta(ge=4 * 1024 * 1024)] | None = None
    memory_reservation: Positive | None = None
    pids: Positive | None = None


class Ulimit(Spec, frozen=True, kw_only=True):
    soft: Annotated[int, msgspec.Meta(ge=-1)]
    hard: Annotated[int, msgspec.Meta(ge=-1)]


class Placement(Spec, frozen=True, kw_only=True):
    """Where replicas may go (`deploy.placement`); those that are there stay where they are.

    `constraints` are texts like `node.labels.disk == ssd`, all of which a host must satisfy.  `spread` names
    what replicas are spread over before hosts; empty: zones.
    """

    constraints: tuple[str, ...] = ()
    spread: tuple[str, ...] = ()
    max_per_host: Positive | None = None


class UpdateConfig(Spec, frozen=True, kw_only=True):
    """How the replicas of a service are replaced (`deploy.update_config`, `rollback_config`).

    `parallelism` replicas at a time (0: all at once), `delay` between one batch and the next.  A replica that
    fails within `monitor` after it was ready has failed; more than `max_failure_ratio` of them lead to the
    `failure_action`.  Compose would pause; here a release that fails is taken back unless told otherwise.
    """

    parallelism: Count = 1
    delay: Duration = 0.0
    order: Literal["stop-first", "start-first"] = "stop-first"
    monitor: Duration = 0.0
    max_failure_ratio: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    failure_action: Literal["continue", "rollback", "pause"] = "rollback"


class ReleasePolicy(Spec, frozen=True, kw_only=True):
    """How a release of the app comes into force (`x-skep.release` of the app).

    rolling: service by service, as its `update_config` says.
    atomic: a full second set is started and proven, then all traffic is switched at once; the old set stays
    for `drain`, ready to be switched back to.
    canary: the new set gets each of `steps` (percent of new connections) for `interval`, and is taken back if
    it answers more of its requests with errors than the old set by `max_error_rate` (a share), or takes
    `max_latency` times as long.
    """

    strategy: Literal["rolling", "atomic", "canary"] = "rolling"
    deadline: Duration | None = None
    """Seconds within which the release must be in force; then it is taken back."""
    drain: Duration = 10.0
    steps: tuple[Annotated[int, msgspec.Meta(ge=1, le=99)], ...] = (5, 25, 50)
    interval: Duration = 60.0
    max_error_rate: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.01
    max_latency: Annotated[float, msgspec.Meta(ge=1)] = 1.5
    unchecked: bool = False
    """Services without a health check may be released atomically or as canaries."""


class EndpointSpec(Spec, frozen=True, kw_only=True):
    """An HTTP(S) endpoint: requests for `host` (or `*.domain`) below `path` are answered by the service.

    `port` is the container's (None: the only one it exposes or publishes).  `tls` names a certificate of the
    tenant, or is `acme`.  `rate` is requests per second of one client,
    `max_connections` of all to one replica.
    """

    host: str
    path: str = "/"
    port: PortNumber | None = None
    tls: str | None = None
    redirect: bool = True
    """With `tls`: who comes without it is sent there."""
    sticky: bool = False
    max_connections: Positive | None = None
    rate: Positive | None = None
    timeout: Duration = 60.0


class Autoscale(Spec, frozen=True, kw_only=True):
    """How many replicas a service has, by what they do (`x-skep.scale`).

    `cpu` and `memory` are percent of the limits, `requests` per second and replica, `latency` seconds.  Each
    that is set asks for a number of replicas, and the highest is taken.  `min` 0: without requests nothing
    runs, and the next request to an endpoint starts it.
    """

    min: Count = 1
    max: Positive = 10
    cpu: Positive | None = None
    memory: Positive | None = None
    requests: Annotated[float, msgspec.Meta(gt=0)] | None = None
    latency: Annotated[float, msgspec.Meta(gt=0)] | None = None
    up_cooldown: Duration = 15.0
    down_cooldown: Duration = 300.0
    idle: Duration = 300.0
    """Seconds without a request after which `min: 0` takes the last replica away."""


class AppExtensions(Spec, frozen=True, kw_only=True):
    """`x-skep` of the app."""

    release: ReleasePolicy = ReleasePolicy()
    zones: tuple[str, ...] = ()
    """Services that name no zones of their own run only in these; empty: in any."""


class Extensions(Spec, frozen=True, kw_only=True):
    """`x-skep` of a service: what Compose has no word for."""

    stateful: bool = False
    """One data disk per replica and volume instead of one shared by all replicas."""
    system_disk: Positive | None = None
    """Size of the system disk in bytes; None takes the default of the installation."""
    keep_system_disk: bool = False
    """Keep what the container wrote to its root file system when the replica is re-created."""
    zones: tuple[str, ...] = ()
    """Run only in these; empty: in any."""
    pack: bool = False
    """Fill one host after the other instead of spreading the replicas."""
    priority: Priority = Priority.NORMAL
    """Who comes first where processors or memory are short; `high` is for admins."""
    security_groups: tuple[str, ...] = ()
    """Groups of the tenant that decide what reaches the replicas; empty: everything does."""
    endpoints: tuple[EndpointSpec, ...] = ()
    scale: Autoscale | None = None


class ServiceSpec(Spec, frozen=True, kw_only=True):
    """One Compose service.  `image` is a reference; `command`/`entrypoint` None keep the image's own."""

    image: str
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    environment: dict[str, str] = {}
    working_dir: str | None = None
    user: str | None = None
    group_add: tuple[str, ...] = ()
    hostname: str | None = None
    labels: dict[str, str] = {}
    ports: tuple[PublishedPort, ...] = ()
    expose: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    networks: dict[str, NetworkAttachment] = {}
    """Networks of the app by name; empty means the tenant's flat network `default`."""
    depends_on: dict[ServiceName, Dependency] = {}
    healthcheck: HealthCheck | None = None
    restart: RestartPolicy = RestartPolicy()
    replicas: Count = 1
    resources: Resources = Resources()
    placement: Placement = Placement()
    update: UpdateConfig = UpdateConfig()
    rollback: UpdateConfig = UpdateConfig()
    endpoint_mode: Literal["vip", "dnsrr"] = "vip"
    """Whether the service's name resolves to its virtual IP or to its replicas."""
    ulimits: dict[str, Ulimit] = {}
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    sysctls: dict[str, str] = {}
    extra_hosts: dict[str, str] = {}
    read_only: bool = False
    init: bool = False
    tty: bool = False
    stdin_open: bool = False
    shm_size: Positive | None = None
    stop_signal: str | None = None
    stop_grace_period: Duration = 10.0
    secrets: tuple[FileMount, ...] = ()
    configs: tuple[FileMount, ...] = ()
    x_skep: Extensions = Extensions()


class AppSubnet(Spec, frozen=True, kw_only=True):
    """One more range of addresses, as CIDR.  Without a gateway that is its first address."""

    subnet: str
    gateway: str | None = None


class AppNetwork(Spec, frozen=True, kw_only=True):
    """A network of the app.  `external` means an existing network of the tenant with that name.

    The name `default` without a subnet is the tenant's flat network, shared by all its apps.  `subnets` are
    used when `subnet` is full, in their order; one of them may be of IPv6.  With `enable_ipv6` a network that
    names none gets one.
    """

    subnet: str | None = None
    gateway: str | None = None
    subnets: tuple[AppSubnet, ...] = ()
    enable_ipv6: bool = False
    internal: bool = False
    external: str | None = None
    labels: dict[str, str] = {}


class AppVolume(Spec, frozen=True, kw_only=True):
    """A named volume: a data disk of `size` bytes.  `external` names an existing disk of the tenant."""

    size: Positive | None = None
    external: str | None = None
    labels: dict[str, str] = {}


class AppFile(Spec, frozen=True, kw_only=True):
    """The content of a config or secret.  A stored release holds its `digest` only."""

    content: bytes | None = None
    digest: str | None = None


class AppSpec(Spec, frozen=True, kw_only=True):
    """A whole app, ready to be released: images are references, nothing points at the client's files."""

    name: AppName
    services: dict[ServiceName, ServiceSpec]
    networks: dict[str, AppNetwork] = {}
    volumes: dict[str, AppVolume] = {}
    configs: dict[str, AppFile] = {}
    secrets: dict[str, AppFile] = {}
    x_skep: AppExtensions = AppExtensions()
