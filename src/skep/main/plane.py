"""The control plane of one process: the database, the flow engine, every use case, the reconcilers."""

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog

from skep.bus.bus import Bus
from skep.bus.stamps import leader, stamped
from skep.configuration import Configuration
from skep.control.control import Control, make_control
from skep.control.desired import DesiredState
from skep.control.endpoints.edge_counts import EdgeCounts
from skep.control.endpoints.edges import Edges
from skep.control.events import Observations
from skep.control.flows.catalogue import make_registry
from skep.control.flows.environment import CloudEnvironment, HostEnvironment
from skep.control.host_directory import HostDirectory
from skep.control.hosts.authorities import Authorities
from skep.control.hosts.liveness import Heartbeats, HostNews, LivenessWatch
from skep.control.image_sources import ImageSources
from skep.control.leadership import Leadership
from skep.control.plans.specifications import Limits
from skep.control.reconcilers.autoscaler import Autoscaler
from skep.control.reconcilers.emptying import Emptying
from skep.control.reconcilers.ordering import Ordering
from skep.control.reconcilers.reconciler import Reconciler
from skep.control.runs.flow_engine import FlowRoom, flow_room
from skep.control.settings import Settings
from skep.control.setup import prepare_installation
from skep.control.telling.balancing import Balancing
from skep.control.telling.egressing import Egressing
from skep.control.telling.guarding import Guarding
from skep.control.telling.peering import Peering
from skep.control.telling.traffic import Leading, Publishing, Traffic
from skep.flow import Database
from skep.main.background import background
from skep.main.database import open_database
from skep.main.spool import spool
from skep.model.errors import InvalidInput
from skep.model.ids import HostName, ReplicaId, ZoneName, new_id
from skep.providers.kubernetes import Clusters

_AGENT = "agent."

log = structlog.get_logger("skep")


@dataclass(frozen=True)
class Foundation:
    """What everything else of a process of control stands on."""

    settings: Configuration
    database: Database
    bus: Bus
    desired: DesiredState
    observations: Observations
    woken: asyncio.Event
    """Set when something changed that reconcilers should look at."""
    directory: HostDirectory
    peering: Peering
    traffic: Traffic
    edges: Edges
    guarding: Guarding
    balancing: Balancing
    process: str
    """This process and no other, nor a later life of it."""

    @property
    def shared(self) -> bool:
        """Whether other processes of control may be there: only one can have an embedded database."""
        return self.database.engine.dialect.name != "sqlite"


async def foundation(
    stack: AsyncExitStack, settings: Configuration, bus: Bus, name: str = "up"
) -> Foundation:
    """`name`: what kind of process this is.

    Raises:
        Unavailable: there is no database that can be used.
    """
    database = await open_database(stack, settings)
    woken, directory = asyncio.Event(), HostDirectory()
    peering = Peering(database, directory)
    stack.push_async_callback(peering.close)
    desired = DesiredState(database, limits(settings), settings.seal)
    edges, balancing = Edges(database, directory, desired, peering), Balancing(database, directory)
    leaders = (
        Publishing(database, directory, desired),
        Leading(balancing, balancing.networks_of),
        Leading(edges, edges.apps_of),
    )
    traffic = Traffic(database, directory, leaders)
    stack.push_async_callback(traffic.close)

    def changed(replica: ReplicaId) -> None:
        peering.replica_changed(replica)
        traffic.replica_changed(replica)

    return Foundation(
        settings=settings,
        database=database,
        bus=bus,
        desired=desired,
        traffic=traffic,
        edges=edges,
        observations=Observations(database, bus, woken.set, time.time, changed),
        woken=woken,
        directory=directory,
        peering=peering,
        guarding=Guarding(database, directory),
        balancing=balancing,
        process=f"{name}-{socket.gethostname()}-{new_id()}",
    )


async def prepare(base: Foundation, zone: ZoneName) -> None:
    """Make what every installation has, with this as its first zone, unless that is there."""
    await prepare_installation(
        base.database,
        region=base.settings.region,
        zone=zone,
        token_file=base.settings.admin_token or base.settings.etc / "admin.token",
        given=base.settings.admin_token is not None,
        now=time.time,
        new_id=new_id,
    )


async def control_plane(stack: AsyncExitStack, base: Foundation, *, works: bool = True) -> Control:
    """Runs go on from where they were, and what differs from what is desired is seen to.

    One that does not work answers questions and starts runs; others carry them out.
    """
    room = await stack.enter_async_context(_flow_room(base, works))
    control = _control(base, room)
    if works:
        watch = LivenessWatch(
            base.database, base.directory, _news(base), base.settings.silence, time.monotonic
        )
        await stack.enter_async_context(background(watch.run(), "liveness"))
        if base.shared:
            await stack.enter_async_context(background(_listen(base), "news"))
        await stack.enter_async_context(background(_reconcile(base, room, control), "reconciler"))
    return control


async def _listen(base: Foundation) -> None:
    """Hosts tell any worker what they see; the one that leads hears of it this way, and looks at once."""
    async with base.bus.subscribe("event") as events:
        async for _ in events:
            base.woken.set()


async def _reconcile(base: Foundation, room: FlowRoom, control: Control) -> None:
    """Where several processes work, the one that leads does it."""
    reconciler = Reconciler(
        database=base.database,
        flows=room.flows,
        hosts=base.directory,
        desired=base.desired,
        apps=control.apps,
        woken=base.woken,
        monotonic=time.monotonic,
        peering=base.peering,
        guarding=base.guarding,
        edges=base.edges,
        balancing=base.balancing,
        egressing=egressing(base),
        emptying=Emptying(base.database, control.draining, time.monotonic),
    )

    autoscaler = Autoscaler(
        database=base.database,
        flows=room.flows,
        directory=base.directory,
        scaling=control.scaling,
        monotonic=time.monotonic,
    )

    ordering = _ordering(base)

    async def lead(epoch: int) -> None:
        with stamped(leader(epoch)):
            await asyncio.gather(reconciler.run(), autoscaler.run(), *(one.run() for one in ordering))

    if base.shared:
        await Leadership(base.database, "reconciler", base.process).run(lead)
    else:
        await lead(1)


def _ordering(base: Foundation) -> list[Ordering]:
    """None where nobody has agreed to an authority's terms."""
    settings = base.settings
    if not settings.acme_terms_agreed:
        return []
    from skep.providers.acme import AcmeIssuer  # its library is slow to load, and few have agreed

    made = Ordering(
        database=base.database,
        issuer=AcmeIssuer(settings.acme_directory, settings.acme_contact, settings.acme_ca),
        edges=base.edges,
        directory=base.directory,
        seal=settings.seal,
        now=time.time,
        new_id=new_id,
        chance=random.SystemRandom().random,
    )
    return [made]


def heartbeats(base: Foundation) -> Heartbeats:
    """Where the signs of life of hosts go, however they come."""
    return Heartbeats(base.database, _news(base), base.woken.set, base.settings.silence)


def _news(base: Foundation) -> HostNews:
    return HostNews(base.bus, time.time)


def authorities(base: Foundation) -> Authorities:
    settings = base.settings
    return Authorities(base.database, settings.seal, time.time, settings.own_authority)


def must_be_shared(settings: Configuration) -> None:
    """Raises InvalidInput: processes that are apart meet in a server's database and on a broker."""
    lacking = [key for key in ("database", "bus") if not getattr(settings, key)]
    if lacking:
        raise InvalidInput(
            f"{' and '.join(map(repr, lacking))} must be set for this: PostgreSQL and RabbitMQ are where the "
            "processes of an installation meet (docs/reference/configuration.md). For everything in one "
            "process: skep up"
        )


def limits(settings: Configuration) -> Limits:
    return Limits(memory=settings.default_memory, pids=settings.default_pids)


@asynccontextmanager
async def _flow_room(base: Foundation, works: bool) -> AsyncIterator[FlowRoom]:
    settings = base.settings
    async with flow_room(
        *(base.database, make_registry(), _environments(base), base.observations.run_ended),
        cache=settings.data / "bundles",
        retention=settings.retention,
        unconfined=settings.unconfined_bundles,
        shared=base.shared,
        works=works,
        name=base.process.partition("-")[0],
    ) as room:
        yield room


def _environments(base: Foundation) -> Callable[[str], object]:
    """What steps find, by their route: control itself, or a host."""
    cloud = CloudEnvironment(
        now=time.time,
        networks=base.settings.networks,
        traffic=base.traffic,
        counting=EdgeCounts(base.database, base.directory),
        hosts=base.directory,
    )
    sources = ImageSources(base.directory)

    def environment(route: str) -> object:
        if not route:
            return cloud
        if not route.startswith(_AGENT):
            raise LookupError(f"nothing is reached by the route {route!r}: it must be agent.HOST")
        return placed(HostName(route.removeprefix(_AGENT)))

    async def placed(name: HostName) -> HostEnvironment:
        return HostEnvironment(
            name=name,
            host=await base.directory.place(name),
            desired=base.desired,
            sources=sources,
            peering=base.peering,
            guarding=base.guarding,
            balancing=base.balancing,
        )

    return environment


def _control(base: Foundation, room: FlowRoom) -> Control:
    settings = base.settings
    of_control = Settings(
        spool=spool(settings),
        networks=settings.networks,
        default_disk=settings.default_disk,
        limits=limits(settings),
        public_host=settings.public_host,
        public_metrics=settings.metrics == "open",
        api_url=settings.url,
        operators_tls=settings.tls_certificate is not None,
        bus_url=settings.bus,
        bus_management=settings.bus_management if settings.bus_accounts == "own" else None,
        seal=settings.seal,
        authority=settings.own_authority,
        host_timeout=settings.silence,
        edge_http=settings.edge_http,
        edge_https=settings.edge_https,
        acme_agreed=settings.acme_terms_agreed,
        acme_private=settings.acme_ca is not None,
        keep_releases=settings.keep_releases,
        price_cpu_hour=settings.price_cpu_hour,
        price_gib_hour=settings.price_gib_hour,
    )
    return make_control(
        base.database,
        room,
        base.directory,
        of_control,
        base.bus,
        now=time.time,
        new_id=new_id,
        guarding=base.guarding,
        edges=base.edges,
        egressing=egressing(base),
        clusters=Clusters(settings.insecure_registries),
    )


def egressing(base: Foundation) -> Egressing:
    return Egressing(base.database, base.directory, base.desired, base.peering)
