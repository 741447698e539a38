"""A whole control on a simulated host, with callers of every role."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path

from tests.schema import put_schema

from skep.bus.bus import Bus
from skep.bus.inprocess import InProcessBus
from skep.control.callers import Caller, Role
from skep.control.control import Control, make_control
from skep.control.desired import DesiredState
from skep.control.endpoints.edges import Edges
from skep.control.events import Observations
from skep.control.flows.catalogue import make_registry
from skep.control.flows.environment import CloudEnvironment, HostEnvironment
from skep.control.host_directory import HostDirectory
from skep.control.image_sources import ImageSources
from skep.control.plans.specifications import Limits
from skep.control.ports import Host
from skep.control.runs.flow_engine import FlowRoom, flow_room
from skep.control.settings import Settings
from skep.control.setup import prepare_installation, register_host
from skep.control.telling.balancing import Balancing
from skep.control.telling.guarding import Guarding
from skep.control.telling.peering import Peering
from skep.control.telling.traffic import Leading, Publishing, Traffic
from skep.flow import Database, FlowEngine, Registry, RunId, RunState
from skep.flow.storage.retention_policy import RetentionPolicy
from skep.model.ids import Bytes, HostName, ImageId, RegionName, ZoneName, new_id
from skep.model.views.base import Accepted
from skep.providers.simulated import SimulatedHost
from skep.providers.simulated.disks import LARGE
from skep.providers.simulated.host import FACTS
from skep.providers.simulated.images import image
from skep.store import images
from skep.store.hosts import ZoneRow, ensure_zone
from skep.store.images import ImageRow
from skep.store.schema import migrate

HOST = HostName("host-1")
REGISTRY = make_registry()


Reach = Callable[[HostName, SimulatedHost], AbstractAsyncContextManager[Host]]


@dataclass
class Clock:
    """Stands still until it is moved.  Seconds since 1970."""

    time: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.time


class Installation:
    def __init__(
        self,
        control: Control,
        database: Database,
        flows: FlowEngine,
        hosts: dict[HostName, SimulatedHost],
        clock: Clock,
        directory: HostDirectory,
        bus: Bus,
    ) -> None:
        self.control = control
        self.database = database
        self.flows = flows
        self.hosts = hosts
        self.host = hosts[HOST]
        self.clock = clock
        self.directory = directory
        self.bus = bus
        self.admin: Caller

    async def person(self, name: str, role: Role, tenant: str = "default") -> Caller:
        """A new user who is logged in."""
        await self.control.users.create(self.admin, name, tenant, role)
        made = await self.control.tokens.create(self.admin, "login", user=name)
        return await self.control.auth.authenticate(made.secret)

    async def finish(self, accepted: Accepted) -> None:
        assert accepted.run is not None, accepted.message
        record = await self.flows.wait(RunId(accepted.run), 30)
        assert record.state is RunState.SUCCEEDED, record.error


@asynccontextmanager
async def installation(
    folder: Path,
    registry: Registry = REGISTRY,
    *,
    hosts: int = 1,
    zones: int = 1,
    reach: Reach | None = None,
    pools: Mapping[HostName, Bytes] = {},
    url: str = "",
    shared: bool = False,
) -> AsyncIterator[Installation]:
    """With an admin, and the image `busybox:1` that everybody may use.

    Hosts are `host-1`, `host-2`, …, in turn of the zones `zone`, `zone-2`, …; `reach`: how control reaches
    one, if not directly; `pools`: how large those of their disks are.  The database is in the folder unless
    there is a `url`; others may work on it too if it is `shared`.
    """
    clock = Clock()
    database = await Database.open(url or await put_schema(folder / "skep.db"), durable=False)
    try:
        await migrate(database.engine)
        bus = InProcessBus()
        observations = Observations(database, bus, asyncio.Event().set, clock)
        directory = HostDirectory()
        machines = {
            (name := HostName(f"host-{number + 1}")): SimulatedHost.make(
                events=observations, spool=_spool(folder), pool=pools.get(name, LARGE)
            )
            for number in range(hosts)
        }
        desired, sources = DesiredState(database, Limits()), ImageSources(directory)
        guarding = Guarding(database, directory)
        edges = Edges(database, directory, desired, Peering(database, directory))
        balancing = Balancing(database, directory)
        leaders = (
            Publishing(database, directory, desired),
            Leading(balancing, balancing.networks_of),
            Leading(edges, edges.apps_of),
        )
        traffic = Traffic(database, directory, leaders)

        def environment(route: str) -> object:
            if not route:
                return CloudEnvironment(
                    now=clock, networks=IPv4Network("10.128.0.0/9"), traffic=traffic, hosts=directory
                )
            return placed(HostName(route.removeprefix("agent.")))

        async def placed(name: HostName) -> HostEnvironment:
            return HostEnvironment(
                name=name,
                host=await directory.place(name),
                desired=desired,
                sources=sources,
                guarding=guarding,
                balancing=balancing,
            )

        await prepare_installation(
            database,
            region=RegionName("region"),
            zone=ZoneName("zone"),
            token_file=folder / "admin.token",
            now=clock,
            new_id=new_id,
        )
        for number, name in enumerate(machines):
            zone = ZoneName(f"zone-{number % zones + 1}" if number % zones else "zone")
            row = ZoneRow(name=zone, region=RegionName("region"))
            await database.write(partial(ensure_zone, zone=row))
            await register_host(database, zone, name, FACTS)
        async with AsyncExitStack() as stack:
            for name, machine in machines.items():
                await stack.enter_async_context(machine.engine)
                reached = reach(name, machine) if reach else nullcontext(machine)
                directory.add(name, await stack.enter_async_context(reached))
            room = await stack.enter_async_context(
                flow_room(
                    *(database, registry, environment, observations.run_ended),
                    cache=folder / "bundles",
                    retention=RetentionPolicy(),
                    grace=0,
                    shared=shared,
                )
            )
            control = _control(database, room, directory, folder, clock, bus, guarding)
            made = Installation(control, database, room.flows, machines, clock, directory, bus)
            made.admin = await made.control.auth.authenticate((folder / "admin.token").read_text().strip())
            await _share_busybox(made)
            yield made
    finally:
        await database.close()


def _control(
    database: Database,
    room: FlowRoom,
    directory: HostDirectory,
    folder: Path,
    clock: Clock,
    bus: Bus,
    guarding: Guarding,
) -> Control:
    settings = Settings(
        spool=_uploads(folder),
        default_disk=Bytes(1024**2),
        limits=Limits(memory=Bytes(64 * 1024**2)),
        api_url="https://skep.example:7537",
        bus_url="amqp://bus.example",
        seal=folder / "installation.key",
        acme_agreed=True,
        acme_private=True,
    )
    return make_control(database, room, directory, settings, bus, now=clock, new_id=new_id, guarding=guarding)


def _uploads(folder: Path) -> Path:
    """Where the API receives them; not where the host has them."""
    return _made(folder / "uploads")


def _spool(folder: Path) -> Path:
    return _made(folder / "spool")


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


async def _share_busybox(made: Installation) -> None:
    info = made.host.images.add(image("b" * 64, 1024))
    row = ImageRow(
        id=ImageId(new_id()),
        tenant_id=images.SHARED,
        reference="busybox:1",
        digest=info.digest,
        info=info,
        created=made.clock(),
    )
    await made.database.write(lambda connection: images.save(connection, row))
