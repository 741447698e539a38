"""A cloud on simulated hosts, for trials: real use cases, real rows, real flows, no kernel."""

import itertools
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.apps.apps import Apps
from skep.control.apps.draining import Draining
from skep.control.apps.moving import Moving
from skep.control.callers import Caller, Role
from skep.control.desired import DesiredState
from skep.control.disks import Disks
from skep.control.endpoints.edge_counts import EdgeCounts
from skep.control.endpoints.edges import Edges
from skep.control.flows.environment import CloudEnvironment, HostEnvironment
from skep.control.host_directory import HostDirectory
from skep.control.image_sources import ImageSources
from skep.control.images import Images
from skep.control.networks.networks import Networks
from skep.control.plans.specifications import Limits
from skep.control.settings import Settings
from skep.control.setup import UNBOUNDED
from skep.control.telling.peering import Peering
from skep.control.telling.traffic import Leading, Publishing, Traffic
from skep.flow import Database, Flow, FlowEngine, Registry, RunId, RunState
from skep.model.ids import (
    Bytes,
    HostName,
    ImageId,
    NetworkId,
    RegionName,
    ReplicaId,
    TenantId,
    UserId,
    ZoneName,
)
from skep.model.names import AppName, ServiceName, TenantName
from skep.model.spec import AppSpec, AppVolume, Mount, ServiceSpec
from skep.model.topology import PoolName
from skep.model.views.base import Accepted
from skep.providers.simulated import SimulatedHost
from skep.providers.simulated.host import FACTS
from skep.providers.simulated.images import image
from skep.store import apps, disks, hosts, images, networks, releases, replicas, rows, tenants
from skep.store.hosts import HostRow, ZoneRow
from skep.store.images import ImageRow
from skep.store.tables import metadata
from skep.store.tenants import TenantRow

HOST = HostName("host-1")
TENANT = TenantId("tenant")
ALICE = Caller(
    user=UserId("alice"),
    user_name="alice",
    role=Role.MEMBER,
    tenant=TENANT,
    tenant_name=TenantName("hive"),
)
BUSYBOX = image("b" * 64, 1024)
DATA = Mount(type="volume", source="data", target="/data")
NETWORKS = IPv4Network("10.128.0.0/9")


def service(*args: str, **changes: object) -> ServiceSpec:
    """A service of a simulated program (default: one that never ends)."""
    spec = ServiceSpec(image="busybox:1", command=args or ("sleep", "infinity"))
    return msgspec.structs.replace(spec, **changes)


class Captured(FlowEngine):
    """Takes what a use case would start, with its rows, and starts nothing."""

    flow: str | Flow = ""
    input: Mapping[str, object] = MappingProxyType({})

    async def start(
        self,
        flow: str | Flow,
        input: Mapping[str, object],  # noqa: A002
        *,
        before: Callable[[AsyncConnection], Awaitable[None]] | None = None,
        transaction: Callable[[AsyncConnection], Awaitable[None]] | None = None,
        **_about: Any,
    ) -> RunId:
        self.flow, self.input = flow, input
        for write in (before, transaction):
            if write is not None:
                await self._database.write(write)
        return RunId("captured")


class Cloud:
    """The use cases of one tenant, joined as `main` joins them."""

    def __init__(self, world: "CloudWorld", database: Database, flows: FlowEngine) -> None:
        settings = Settings(
            spool=world.spool,
            networks=NETWORKS,
            default_disk=Bytes(1024**2),
            limits=Limits(memory=Bytes(64 * 1024**2)),
        )
        directory = world.directory
        self.world = world
        self.database = database
        self.flows = flows
        self.apps = Apps(database, flows, settings, world.now, world.new_id)
        self.disks = Disks(database, flows, directory)
        self.images = Images(database, flows, directory, settings, world.now)
        self.networks = Networks(database, flows, directory, NETWORKS, world.now)
        self.moving = Moving(database, flows, directory, self.apps, settings, world.new_id)
        self.draining = Draining(database, flows, settings, world.new_id)

    async def done(self, accepted: Accepted) -> None:
        """Wait for the run, which must succeed."""
        assert accepted.run is not None, accepted.message
        record = await self.flows.wait(RunId(accepted.run), 30)
        assert record.state is RunState.SUCCEEDED, record.error


Act = Callable[[Cloud], Awaitable[Any]]

Litter = Callable[[SimulatedHost], Awaitable[None]]


async def tidy(_host: SimulatedHost) -> None:
    """Nothing lies around."""


@dataclass(frozen=True)
class Template:
    """A database as SQLite has it, to be made again without any thought: worlds are many."""

    schema: list[str] = field(default_factory=list)
    rows: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)

    @classmethod
    async def of(cls, database: Database) -> "Template":
        async with database.read() as connection:
            names = {table.name for table in metadata.sorted_tables}
            made = await connection.exec_driver_sql(
                "SELECT tbl_name, sql FROM sqlite_master ORDER BY type DESC"
            )
            schema = [row.sql for row in made if row.tbl_name in names and row.sql]
            rows_of = {
                table.name: [
                    tuple(row) for row in await connection.exec_driver_sql(f"SELECT * FROM {table.name}")
                ]
                for table in metadata.sorted_tables
            }
        return cls(schema, {name: found for name, found in rows_of.items() if found})


class CloudWorld:
    """Satisfies `skep.flow.testing.World`: rows as a template has them, and hosts that fit."""

    def __init__(self, folder: Path, template: Template, litter: Litter, names: Sequence[HostName]) -> None:
        self.spool = folder
        self.hosts = {name: SimulatedHost.make(spool=folder) for name in names}
        self.host = self.hosts[HOST]
        self.directory = HostDirectory()
        for name, host in self.hosts.items():
            self.directory.add(name, host)
        self._template = template
        self._litter = litter
        self._touched = False
        self._ids = itertools.count()
        self._begun = False

    def now(self) -> float:
        return 1_800_000_000.0

    def new_id(self) -> str:
        return f"{next(self._ids):020}"

    async def attach(self, database: Database) -> None:
        self.database = database
        self.desired = DesiredState(database, Limits())
        if not self._begun:
            self._begun = True
            await database.write(self._fill)
            await self._raise_hosts()

    def environment(self, route: str) -> object:
        self._touched = True
        if route == "":
            publishing = Publishing(self.database, self.directory, self.desired)
            edges = Edges(self.database, self.directory, self.desired, Peering(self.database, self.directory))
            traffic = Traffic(self.database, self.directory, [publishing, Leading(edges, edges.apps_of)])
            counting = EdgeCounts(self.database, self.directory)
            return CloudEnvironment(
                now=self.now, networks=NETWORKS, traffic=traffic, counting=counting, hosts=self.directory
            )
        name = HostName(route.removeprefix("agent."))
        sources = ImageSources(self.directory)
        return HostEnvironment(name=name, host=self.hosts[name], desired=self.desired, sources=sources)

    async def snapshot(self) -> object:
        """Every row and everything on the hosts that is not for the reconcilers to settle.

        They remove networks without a row from hosts, forward published ports to whoever runs, and forget
        images without a reference.  A network that a host has no use for harms nobody there.  What never
        became a release leaves no more than its record.  Uploads belong to the run: once it has begun, none
        may be left.
        """
        async with self.database.read() as connection:
            found = await _rows(connection)
            places = {row.id: row.host for row in await replicas.find(connection)}
        await self._publish_as_the_reconciler_does()
        wanted = {row["digest"] for row in found["images"]}
        return found | {
            "uploads": sorted(self.spool.iterdir()) if self._touched else [],
            "on the hosts": {
                name: await _have(host)
                | {
                    "networks": await host.fabric.networks() & self._of_use(found, places, name),
                    "images": host.images.digests() & wanted if name == HOST else set(),
                }
                for name, host in self.hosts.items()
            },
        }

    def _of_use(
        self, found: Mapping[str, Any], places: Mapping[ReplicaId, HostName], name: HostName
    ) -> set[NetworkId]:
        """With one host every network; with several those that a replica of the host is on."""
        if len(self.hosts) == 1:
            return {row["id"] for row in found["networks"]}
        return {port.network_id for port in found["ports"] if places.get(port.replica_id) == name}

    async def _fill(self, connection: AsyncConnection) -> None:
        for statement in self._template.schema:
            await connection.exec_driver_sql(statement)
        for table, found in self._template.rows.items():
            marks = ", ".join("?" * len(found[0]))
            await connection.exec_driver_sql(f"INSERT INTO {table} VALUES ({marks})", found)

    async def _raise_hosts(self) -> None:
        """Make true what the rows want."""
        desired = self.desired
        async with self.database.read() as connection:
            members = await replicas.find(connection)
            wanted_disks = await disks.every(connection)
            known = [row.info for row in await images.visible(connection, None)]
        for info in known:
            self.host.images.add(info)
        for disk in wanted_disks:
            await self.hosts[disk.host].disks.create(await desired.disk(disk.id))
        for member in members:
            host = self.hosts[member.host]
            for info in known:
                host.images.add(info)
            spec = await desired.container(member.container_id)
            for port in [await desired.port(port) for port in spec.ports]:
                await host.fabric.ensure_network(await desired.network(port.network))
                await host.fabric.plug(port)
            await host.engine.start(spec)
            if member.desired == "stopped":
                await host.engine.stop(spec.id)
        await self._publish_as_the_reconciler_does()
        await self._litter(self.host)

    async def _publish_as_the_reconciler_does(self) -> None:
        async with self.database.read() as connection:
            members = await replicas.find(connection)
        for name, host in self.hosts.items():
            here = {row.service_id for row in members if row.host == name}
            for service_id in here:
                await host.fabric.publish(await self.desired.publications(service_id, name))
            for service_id in set(await host.fabric.published()) - here:
                await host.fabric.unpublish(service_id)


async def _have(host: SimulatedHost) -> dict[str, Any]:
    return {
        "running": {status.id: (status.state, status.health) for status in await host.engine.list()},
        "disks": await host.disks.list(),
        "ports": await host.fabric.ports(),
        "sandboxes": await host.fabric.sandboxes(),
        "published": {key: told.publications for key, told in (await host.fabric.published()).items()},
    }


async def _seed(connection: AsyncConnection, names: Sequence[HostName]) -> None:
    await connection.run_sync(metadata.create_all)
    await hosts.ensure_zone(connection, ZoneRow(name=ZoneName("z"), region=RegionName("r")))
    facts = FACTS
    for name in names:
        row = HostRow(
            name=name,
            zone=ZoneName("z"),
            pool=PoolName("z"),
            state="ready",
            cpus=facts.cpus,
            memory=facts.memory,
            kernel=facts.kernel,
            cgroups=facts.cgroups,
            boot_id=facts.boot_id,
        )
        await hosts.save(connection, row)
    tenant = TenantRow(id=TENANT, name=TenantName("hive"), quota=UNBOUNDED, created=0.0)
    await tenants.insert(connection, tenant)
    shared = ImageRow(
        id=ImageId("busybox"),
        tenant_id=TENANT,
        reference="busybox:1",
        digest=BUSYBOX.digest,
        info=BUSYBOX,
        created=0.0,
    )
    await images.save(connection, shared)


async def _rows(connection: AsyncConnection) -> dict[str, Any]:
    every = await apps.every(connection)
    history = [row for app in every for row in await releases.of_app(connection, app.id)]
    return {
        "apps": [row for row in every if row.release_id is not None],
        "releases": [
            (row.id, row.state, row.images) for row in history if row.state not in ("pending", "failed")
        ],
        "replicas": [msgspec.structs.replace(row, status=None) for row in await replicas.find(connection)],
        "containers": sorted(await replicas.containers_of(connection), key=lambda row: row.id),
        "networks": _without(await networks.every(connection), "cursor"),
        "ports": await networks.ports_of(connection),
        "published": _without(await networks.published_ports(connection), "id"),
        "disks": await disks.every(connection),
        "images": _without(await images.visible(connection, None), "id"),
    }


def _without(found: list[Any], field: str) -> list[dict[str, Any]]:
    """Rows without what differs between equal worlds."""
    return [{key: value for key, value in rows.columns(row).items() if key != field} for row in found]


class Laboratory:
    """Fresh worlds for the trials of one flow: `before` is done once for real, `act` is what is tried."""

    def __init__(self, folder: Path, registry: Registry, litter: Litter = tidy, hosts: int = 1) -> None:
        self.names = [HostName(f"host-{number + 1}") for number in range(hosts)]
        self.registry = registry
        self._litter = litter
        self._uploads: list[Path] = []
        self.flow: str | Flow = ""
        self.input: Mapping[str, object] = {}
        self._folder = folder
        self._template = Template()
        self._count = itertools.count()

    @asynccontextmanager
    async def worlds(self) -> AsyncIterator[CloudWorld]:
        spool = self._folder / f"spool-{next(self._count)}"
        spool.mkdir()
        for upload in self._uploads:
            shutil.copy(upload, spool)
        world = CloudWorld(spool, self._template, self._litter, self.names)
        async with AsyncExitStack() as engines:
            for host in world.hosts.values():
                await engines.enter_async_context(host.engine)
            yield world

    async def prepare(self, act: Act, before: Act | None = None) -> None:
        database = await Database.open(f"sqlite+aiosqlite:///{self._folder / 'first.db'}", durable=False)
        try:
            await FlowEngine.create_tables_in(database)
            async with self.worlds() as world:
                await database.write(partial(_seed, names=self.names))
                await world.attach(database)
                if before is not None:
                    async with FlowEngine(database, self.registry, world.environment) as engine:
                        await before(Cloud(world, database, engine))
                captured = Captured(database, self.registry, world.environment)
                await act(Cloud(world, database, captured))
            self.flow, self.input = captured.flow, captured.input
            self._template = await Template.of(database)
            self._uploads = list(world.spool.iterdir())
        finally:
            await database.close()


def app(name: str = "shop", **services: ServiceSpec) -> AppSpec:
    """An app of these services, with the volumes they mount."""
    volumes = {
        mount.source: AppVolume()
        for spec in services.values()
        for mount in spec.mounts
        if mount.type == "volume" and mount.source
    }
    return AppSpec(
        name=AppName(name),
        services={ServiceName(key): value for key, value in services.items()},
        volumes=volumes,
    )
