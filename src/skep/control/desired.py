"""What hosts ask control for: complete specifications, made of rows.

A container's specification never changes (another release gives it another id), so it is made once.
"""

import asyncio
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TypeVar

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.plans import attachments, disk_name, network_name
from skep.flow import Database
from skep.model.errors import NotFound
from skep.model.host import (
    ContainerFile,
    ContainerMount,
    ContainerSpec,
    ContainerState,
    DiskSpec,
    NetworkConfig,
    PortConfig,
    Publication,
    ServicePublications,
)
from skep.model.ids import (
    Bytes,
    ContainerId,
    DiskId,
    NetworkId,
    PortId,
    ReplicaId,
    Seconds,
    ServiceId,
)
from skep.model.images import ImageConfig
from skep.model.names import ServiceName
from skep.model.spec import AppSpec, FileMount, HealthCheck, Mount, ServiceSpec
from skep.store import apps, disks, networks, releases, replicas
from skep.store.networks import NetworkRow, PortRow
from skep.store.releases import ReleaseRow
from skep.store.replicas import ContainerRow, ReplicaRow

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CACHED = 2048

T = TypeVar("T")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica gets that asks for nothing."""

    memory: Bytes = Bytes(2 * 1024**3)
    pids: int = 2048


class DesiredState:
    """Satisfies `ports.Desired` from the store.

    A release is read whole when the first of its containers is asked for: a hundred replicas then cost as
    many queries as one.
    """

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database = database
        self._limits = limits
        self._containers: dict[ContainerId, ContainerSpec] = {}
        self._ports: dict[PortId, PortConfig] = {}
        self._networks: dict[NetworkId, NetworkConfig] = {}
        self._reading = asyncio.Lock()

    async def container(self, container: ContainerId) -> ContainerSpec:
        if container not in self._containers:
            async with self._reading:
                await self._read(container)
        return self._containers[container]

    async def wanted(self, container: ContainerId) -> bool:
        async with self._database.read() as connection:
            row = await replicas.by_container(connection, container)
        return row is not None and row.desired == "running"

    async def network(self, network: NetworkId) -> NetworkConfig:
        if network not in self._networks:
            async with self._database.read() as connection:
                row = _found(await networks.get(connection, network), f"Network {network}")
            self._networks[network] = network_config(row)
        return self._networks[network]

    async def port(self, port: PortId) -> PortConfig:
        if port not in self._ports:
            async with self._database.read() as connection:
                row = _found(await networks.port(connection, port), f"Port {port}")
                replica = _found(await replicas.get(connection, row.replica_id), f"Replica {row.replica_id}")
                app = _found(await apps.get(connection, replica.app_id), f"App {replica.app_id}")
            return port_config(row, app.name)
        return self._ports[port]

    async def disk(self, disk: DiskId) -> DiskSpec:
        async with self._database.read() as connection:
            row = _found(await disks.get(connection, disk), f"Disk {disk}")
        return DiskSpec(id=row.id, size=row.size, kind="data" if row.kind == "data" else "system")

    async def publications(self, service: ServiceId) -> ServicePublications:
        """Connections go to the replicas that run; while none does, to all that should."""
        async with self._database.read() as connection:
            published = await networks.published_ports(connection, services=[service])
            if not published:
                return ServicePublications(service=service, publications=())
            members = await replicas.of_service(connection, service)
            first_ports = [
                port
                for replica in _serving(members)
                for port in await networks.ports_of(connection, replica=replica.id)
                if port.position == 0
            ]
        by_network: dict[NetworkId, list[IPv4Address]] = {}
        for port in first_ports:
            by_network.setdefault(port.network_id, []).append(IPv4Address(port.address))
        return ServicePublications(
            service=service,
            publications=tuple(
                Publication(
                    host_ip=row.host_ip,
                    published=row.published,
                    protocol="udp" if row.protocol == "udp" else "tcp",
                    network=network,
                    target=row.target,
                    addresses=tuple(addresses),
                )
                for row in published
                for network, addresses in by_network.items()
            ),
        )

    async def file(self, digest: str) -> bytes:
        async with self._database.read() as connection:
            return _found(await apps.file(connection, digest), "The content of a config or secret")

    async def _read(self, container: ContainerId) -> None:
        """Unless another asker has read its release meanwhile."""
        if container in self._containers:
            return
        async with self._database.read() as connection:
            row = _found(await replicas.container(connection, container), f"Container {container}")
            release = _found(await releases.get(connection, row.release_id), f"Release {row.release_id}")
            facts = await _facts(connection, release)
        self._learn(release, facts)

    def _learn(self, release: ReleaseRow, facts: "_ReleaseFacts") -> None:
        if len(self._containers) > CACHED:
            self._containers.clear()
            self._ports.clear()
        for row in facts.containers:
            replica = facts.replicas[row.replica_id]
            ports = facts.ports.get(replica.id, [])
            self._ports |= {port.id: port_config(port, release.spec.name) for port in ports}
            self._containers[row.id] = _assembled(row, replica, release, ports, facts, self._limits)


class _ReleaseFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the containers of one release are made of; networks and disks are the tenant's, by name."""

    containers: list[ContainerRow]
    replicas: dict[ReplicaId, ReplicaRow]
    ports: dict[ReplicaId, list[PortRow]]
    networks: dict[str, NetworkRow]
    disks: dict[str, DiskId]


async def _facts(connection: AsyncConnection, release: ReleaseRow) -> _ReleaseFacts:
    app, tenant = release.app_id, release.tenant_id
    containers = await replicas.containers_of(connection, app)
    ports: dict[ReplicaId, list[PortRow]] = {}
    for port in await networks.ports_of(connection, app=app):
        ports.setdefault(port.replica_id, []).append(port)
    return _ReleaseFacts(
        containers=[row for row in containers if row.release_id == release.id],
        replicas={row.id: row for row in await replicas.find(connection, app=app)},
        ports=ports,
        networks={row.name: row for row in await networks.every(connection, tenant)},
        disks={row.name: row.id for row in await disks.every(connection, tenant) if row.kind == "data"},
    )


def _assembled(
    row: ContainerRow,
    replica: ReplicaRow,
    release: ReleaseRow,
    ports: list[PortRow],
    facts: _ReleaseFacts,
    limits: Limits,
) -> ContainerSpec:
    spec = release.spec
    service = spec.services[ServiceName(replica.service)]
    names = [network_name(spec.name, name, spec) for name, _ in attachments(service)]
    by_network = {port.network_id: port.id for port in ports}
    attached = [facts.networks[name] for name in names if name in facts.networks]
    attached = [network for network in attached if network.id in by_network]
    return msgspec.structs.replace(
        container_spec(row, replica, release, limits),
        mounts=tuple(
            _mount(mount, release, replica, facts.disks)
            for mount in sorted(service.mounts, key=lambda mount: mount.target.count("/"))
        ),
        ports=tuple(by_network[network.id] for network in attached),
        nameserver=IPv4Address(attached[0].gateway) if attached else None,
    )


def container_spec(
    row: ContainerRow, replica: ReplicaRow, release: ReleaseRow, limits: Limits
) -> ContainerSpec:
    """The service's wishes merged with what its image says, as the common engines merge them."""
    service = release.spec.services[ServiceName(replica.service)]
    image = release.images[replica.service]
    resources = service.resources
    memory = Bytes(resources.memory or limits.memory)
    return ContainerSpec(
        id=row.id,
        replica=replica.id,
        tenant=row.tenant_id,
        name=f"{release.spec.name}/{replica.name}",
        hostname=service.hostname or replica.name,
        image=image.digest,
        args=process_args(service, image.config),
        environment=environment(service, image.config),
        working_dir=service.working_dir or image.config.working_dir or "/",
        user=service.user if service.user is not None else image.config.user,
        group_add=service.group_add,
        system_disk=row.system_disk,
        files=tuple(
            [_file(mount, release.spec, secret=False) for mount in service.configs]
            + [_file(mount, release.spec, secret=True) for mount in service.secrets]
        ),
        extra_hosts=service.extra_hosts,
        memory=memory,
        memory_reservation=Bytes(resources.memory_reservation) if resources.memory_reservation else None,
        cpus=resources.cpus,
        pids=resources.pids or limits.pids,
        ulimits=service.ulimits,
        cap_add=service.cap_add,
        cap_drop=service.cap_drop,
        sysctls=service.sysctls,
        read_only=service.read_only,
        init=service.init,
        tty=service.tty,
        stdin_open=service.stdin_open,
        shm_size=Bytes(service.shm_size or 64 * 1024 * 1024),
        stop_signal=service.stop_signal or image.config.stop_signal or "SIGTERM",
        stop_grace_period=Seconds(service.stop_grace_period),
        restart=service.restart,
        healthcheck=health_check(service, image.config),
        labels=image.config.labels | service.labels,
    )


def process_args(service: ServiceSpec, image: ImageConfig) -> tuple[str, ...]:
    """Entrypoint and command; a service with its own entrypoint does not inherit the image's command."""
    if service.entrypoint is not None:
        return service.entrypoint + (service.command or ())
    return image.entrypoint + (service.command if service.command is not None else image.cmd)


def environment(service: ServiceSpec, image: ImageConfig) -> dict[str, str]:
    inherited = dict(entry.split("=", 1) for entry in image.env if "=" in entry)
    return {"PATH": DEFAULT_PATH} | inherited | service.environment


def health_check(service: ServiceSpec, image: ImageConfig) -> HealthCheck | None:
    if service.healthcheck is not None:
        return None if service.healthcheck.test[:1] == ("NONE",) else service.healthcheck
    if not image.healthcheck_test or image.healthcheck_test[0] == "NONE":
        return None
    return HealthCheck(
        test=image.healthcheck_test,
        interval=image.healthcheck_interval,
        timeout=image.healthcheck_timeout,
        retries=image.healthcheck_retries,
        start_period=image.healthcheck_start_period,
    )


def network_config(row: NetworkRow) -> NetworkConfig:
    return NetworkConfig(
        id=row.id,
        tenant=row.tenant_id,
        name=row.name,
        subnet=IPv4Network(row.subnet),
        gateway=IPv4Address(row.gateway),
        index=row.number,
        internal=row.internal,
    )


def port_config(row: PortRow, app: str) -> PortConfig:
    return PortConfig(
        id=row.id,
        network=row.network_id,
        replica=row.replica_id,
        address=IPv4Address(row.address),
        mac=row.mac,
        app=app,
        names=row.names,
        interface=f"eth{row.position}",
        default_route=row.position == 0,
    )


def _serving(members: list[ReplicaRow]) -> list[ReplicaRow]:
    wanted = [replica for replica in members if replica.desired == "running"]
    running = [
        replica
        for replica in wanted
        if replica.status is not None and replica.status.state is ContainerState.RUNNING
    ]
    return running or wanted


def _mount(
    mount: Mount, release: ReleaseRow, replica: ReplicaRow, disks_by_name: dict[str, DiskId]
) -> ContainerMount:
    if mount.type == "bind":
        return ContainerMount(
            target=mount.target,
            path=Path(mount.source),
            read_only=mount.read_only,
            create_host_path=mount.create_host_path,
        )
    if mount.type == "tmpfs":
        size = Bytes(mount.size) if mount.size else None
        return ContainerMount(target=mount.target, size=size, mode=mount.mode, read_only=mount.read_only)
    name = disk_name(release.spec.name, replica.service, replica.ordinal, mount, release.spec)
    disk = _found(disks_by_name.get(name), f"Disk {name!r}")
    return ContainerMount(target=mount.target, disk=disk, read_only=mount.read_only, copy_up=not mount.nocopy)


def _file(mount: FileMount, spec: AppSpec, *, secret: bool) -> ContainerFile:
    declared = (spec.secrets if secret else spec.configs)[mount.source]
    return ContainerFile(
        target=mount.target,
        digest=declared.digest or "",
        secret=secret,
        uid=mount.uid,
        gid=mount.gid,
        mode=mount.mode,
    )


def _found(value: T | None, what: str) -> T:
    if value is None:
        raise NotFound(f"{what} is gone.")
    return value
