"""All use cases in one place, for the entrances."""

from collections.abc import Callable
from dataclasses import dataclass

from skep.bus.bus import Bus
from skep.control.apps.apps import Apps
from skep.control.apps.draining import Draining
from skep.control.apps.moving import Moving
from skep.control.apps.releases import Releases
from skep.control.apps.replicas import Replicas
from skep.control.apps.rollouts import Rollouts
from skep.control.apps.scaling import Scaling
from skep.control.apps.status import Status
from skep.control.clock import Now
from skep.control.disks import Disks
from skep.control.endpoints.edges import Edges
from skep.control.endpoints.endpoint_views import Endpoints
from skep.control.endpoints.tls_certificates import TlsCertificates
from skep.control.events import Events
from skep.control.host_directory import HostDirectory
from skep.control.hosts.authorities import Authorities
from skep.control.hosts.bus_accounts import BusAccounts, SharedBusAccount
from skep.control.hosts.cluster_checks import ClusterChecks
from skep.control.hosts.cluster_zones import ClusterZones
from skep.control.hosts.enrolment import Enrolment
from skep.control.hosts.hosts import Hosts
from skep.control.hosts.join_tokens import JoinTokens
from skep.control.hosts.pools import Pools
from skep.control.hosts.queues import Queues
from skep.control.hosts.zones import Zones
from skep.control.images import Images
from skep.control.metrics import Metrics
from skep.control.networks.egress import EgressAddresses
from skep.control.networks.networks import Networks
from skep.control.networks.reservations import Reservations
from skep.control.networks.security_groups import SecurityGroups
from skep.control.networks.shares import Shares
from skep.control.ports import Clusters
from skep.control.runs.bundles import Bundles
from skep.control.runs.flow_documents import Flows
from skep.control.runs.flow_engine import FlowRoom
from skep.control.runs.limits import FlowLimits
from skep.control.runs.runs import Runs
from skep.control.runs.schedules import Schedules
from skep.control.settings import Settings
from skep.control.telling.egressing import Egressing
from skep.control.telling.guarding import Guarding
from skep.control.tenants.auth import Auth
from skep.control.tenants.tenants import Tenants
from skep.control.tenants.tokens import Tokens
from skep.control.tenants.users import Users
from skep.flow import Database


@dataclass(frozen=True)
class Control:
    auth: Auth
    apps: Apps
    releases: Releases
    scaling: Scaling
    moving: Moving
    rollouts: Rollouts
    status: Status
    replicas: Replicas
    images: Images
    runs: Runs
    flows: Flows
    bundles: Bundles
    schedules: Schedules
    limits: FlowLimits
    metrics: Metrics
    disks: Disks
    networks: Networks
    reservations: Reservations
    shares: Shares
    egress: EgressAddresses
    security_groups: SecurityGroups
    endpoints: Endpoints
    certificates: TlsCertificates
    hosts: Hosts
    draining: Draining
    zones: Zones
    clusters: ClusterChecks
    cluster_zones: ClusterZones
    pools: Pools
    tenants: Tenants
    users: Users
    tokens: Tokens
    join_tokens: JoinTokens
    enrolment: Enrolment
    authorities: Authorities
    events: Events
    queues: Queues


def make_control(
    database: Database,
    room: FlowRoom,
    directory: HostDirectory,
    settings: Settings,
    bus: Bus,
    *,
    now: Now,
    new_id: Callable[[], str],
    guarding: Guarding | None = None,
    edges: Edges | None = None,
    egressing: Egressing | None = None,
    clusters: Clusters | None = None,
) -> Control:
    """Every use case on the same database, engine and hosts."""
    flows = room.flows
    authorities = Authorities(database, settings.seal, now, settings.authority)
    accounts = _accounts(settings, bus)
    enrolment = Enrolment(database, authorities, accounts, now)
    apps = Apps(database, flows, settings, now, new_id)
    draining = Draining(database, flows, settings, new_id)
    rollouts = Rollouts(database, flows, room.clock)
    on_clusters = ClusterZones(database, clusters, bus, settings.seal, now, new_id)
    return Control(
        auth=Auth(database, now),
        apps=apps,
        releases=Releases(database, apps),
        scaling=Scaling(database, apps),
        moving=Moving(database, flows, directory, apps, settings, new_id),
        rollouts=rollouts,
        status=Status(database, flows, apps, rollouts),
        replicas=Replicas(database, directory),
        images=Images(database, flows, directory, settings, now),
        runs=Runs(database, flows, room.clock),
        flows=Flows(flows),
        bundles=Bundles(room.bundles, flows),
        schedules=Schedules(database, room.schedules),
        limits=FlowLimits(database, flows),
        metrics=Metrics(room.metrics, public=settings.public_metrics),
        disks=Disks(database, flows, directory),
        networks=Networks(database, flows, directory, settings.networks, now),
        reservations=Reservations(database, now),
        shares=Shares(database, now),
        egress=EgressAddresses(database, egressing, now),
        security_groups=SecurityGroups(database, guarding, now, new_id),
        endpoints=Endpoints(database, directory, edges, settings, now),
        certificates=TlsCertificates(database, settings.seal, edges, now, new_id),
        hosts=Hosts(database, draining, enrolment, bus),
        draining=draining,
        zones=Zones(database, on_clusters),
        clusters=ClusterChecks(clusters),
        cluster_zones=on_clusters,
        pools=Pools(database),
        tenants=Tenants(database, now),
        users=Users(database, now),
        tokens=Tokens(database, now),
        join_tokens=JoinTokens(database, authorities, accounts, settings, now, new_id),
        enrolment=enrolment,
        authorities=authorities,
        events=Events(bus),
        queues=Queues(database, bus),
    )


def _accounts(settings: Settings, bus: Bus) -> BusAccounts:
    if settings.bus_management is None or not settings.bus_url:
        return SharedBusAccount(settings.bus_url)
    from skep.bus.management import Management  # of brokers, which one machine has none of
    from skep.control.hosts.own_bus_accounts import OwnBusAccounts

    return OwnBusAccounts(settings.bus_url, Management(settings.bus_url, settings.bus_management), bus)
