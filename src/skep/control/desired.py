"""What hosts ask control for: complete specifications, made of rows.

A container's specification never changes (another release gives it another id), so it is made once.
"""

import asyncio
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.naming import scope
from skep.control.plans import facts as reading
from skep.control.plans.specifications import (
    Limits,
    ReleaseFacts,
    container_of,
    disk_spec,
    network_config,
    port_config,
)
from skep.control.sealed_keys import pem
from skep.control.telling.serving import home_of_host, near, serving
from skep.control.telling.telling import generation
from skep.flow import Database
from skep.model.endpoints import certificate_name
from skep.model.errors import NotFound
from skep.model.host import (
    ContainerSpec,
    DiskSpec,
    NetworkConfig,
    PortConfig,
    Publication,
    ServicePublications,
)
from skep.model.ids import (
    ContainerId,
    DiskId,
    HostName,
    NetworkId,
    PortId,
    ReplicaId,
    ServiceId,
)
from skep.store import apps, clusters, disks, endpoints, networks, releases, replicas
from skep.store.networks import PortRow
from skep.store.releases import ReleaseRow
from skep.store.replicas import ReplicaRow

CACHED = 2048

T = TypeVar("T")


class DesiredState:
    """Satisfies `ports.Desired` from the store.

    A release is read whole when the first of its containers is asked for: a hundred replicas then cost as
    many queries as one.
    """

    def __init__(self, database: Database, limits: Limits, seal: Path | None = None) -> None:
        self._database = database
        self._seal = seal
        self._limits = limits
        self._shared = database.engine.dialect.name != "sqlite"
        self._containers: dict[ContainerId, ContainerSpec] = {}
        self._ports: dict[PortId, PortConfig] = {}
        self._system_disks: dict[DiskId, DiskSpec] = {}
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
        """Read anew each time: one that was removed and made again has the same id, but another number."""
        async with self._database.read() as connection:
            return network_config(_found(await networks.get(connection, network), f"Network {network}"))

    async def port(self, port: PortId) -> PortConfig:
        """The names of a port change with a release, of which another process may know alone."""
        if self._shared or port not in self._ports:
            async with self._database.read() as connection:
                row = _found(await networks.port(connection, port), f"Port {port}")
                replica = _found(await replicas.get(connection, row.replica_id), f"Replica {row.replica_id}")
                app = _found(await apps.get(connection, replica.app_id), f"App {replica.app_id}")
                guests = await networks.guests(connection, [row.network_id])
            return port_config(row, scope(app.name, guests.get(port, "")))
        return self._ports[port]

    async def disk(self, disk: DiskId) -> DiskSpec:
        if disk in self._system_disks:
            return self._system_disks[disk]
        async with self._database.read() as connection:
            return disk_spec(_found(await disks.get(connection, disk), f"Disk {disk}"))

    async def publications(self, service: ServiceId, host: HostName) -> ServicePublications:
        """To those that run here; else to those that run; while none does, to all that should.

        Of an app that moves to a cluster, or out of one, to none that the host cannot reach.
        """
        async with self._database.read() as connection:
            age = await generation(connection)
            published = await networks.published_ports(connection, services=[service])
            if not published:
                return ServicePublications(service=service, publications=(), generation=age)
            standing = {row.host for row in await clusters.every(connection)}
            home = home_of_host(host, standing)
            members = near(await replicas.of_service(connection, service), home, standing)
            first_ports = [
                port
                for replica in _serving(members, host, standing)
                for port in await networks.ports_of(connection, replica=replica.id)
                if port.position == 0
            ]
        by_network: dict[NetworkId, list[PortRow]] = {}
        for port in first_ports:
            by_network.setdefault(port.network_id, []).append(port)
        return ServicePublications(
            service=service,
            generation=age,
            publications=tuple(
                Publication(
                    host_ip=row.host_ip,
                    published=row.published,
                    protocol="udp" if row.protocol == "udp" else "tcp",
                    network=network,
                    target=row.target,
                    addresses=tuple(IPv4Address(port.address) for port in ports),
                    addresses6=tuple(IPv6Address(port.address6) for port in ports if port.address6),
                )
                for row in published
                for network, ports in by_network.items()
            ),
        )

    async def file(self, digest: str) -> bytes:
        async with self._database.read() as connection:
            return _found(await apps.file(connection, digest), "The content of a config or secret")

    async def certificate(self, digest: str) -> bytes:
        async with self._database.read() as connection:
            every = await endpoints.every(connection)
            rows = await endpoints.certificates(connection)
        named = {(row.tenant_id, certificate_name(row.spec)) for row in every}
        known = {row.digest: row for row in rows if (row.tenant_id, row.name) in named}
        row = _found(known.get(digest), "The certificate")
        return pem(self._seal, row)

    async def _read(self, container: ContainerId) -> None:
        """Unless another asker has read its release meanwhile."""
        if container in self._containers:
            return
        async with self._database.read() as connection:
            row = _found(await replicas.container(connection, container), f"Container {container}")
            release = _found(await releases.get(connection, row.release_id), f"Release {row.release_id}")
            facts = await _facts(connection, release)
        self._learn(release, facts)

    def _learn(self, release: ReleaseRow, facts: ReleaseFacts) -> None:
        if len(self._containers) > CACHED:
            self._containers.clear()
            self._ports.clear()
            self._system_disks.clear()
        for row in facts.containers:
            replica = facts.replicas[row.replica_id]
            ports = facts.ports.get(replica.id, [])
            self._ports |= {
                port.id: port_config(port, scope(release.spec.name, facts.guests.get(port.id, "")))
                for port in ports
            }
            self._system_disks[row.system_disk] = disk_spec(
                _found(facts.disks.get(row.system_disk), f"Disk {row.system_disk}")
            )
            self._containers[row.id] = container_of(row, replica, release, ports, facts, self._limits)


async def _facts(connection: AsyncConnection, release: ReleaseRow) -> ReleaseFacts:
    app, tenant = release.app_id, release.tenant_id
    known = await disks.every(connection, tenant)
    containers = await replicas.containers_of(connection, app)
    ports: dict[ReplicaId, list[PortRow]] = {}
    for port in await networks.ports_of(connection, app=app):
        ports.setdefault(port.replica_id, []).append(port)
    return ReleaseFacts(
        containers=[row for row in containers if row.release_id == release.id],
        replicas={row.id: row for row in await replicas.find(connection, app=app)},
        ports=ports,
        networks=await networks.reachable(connection, tenant),
        guests=await networks.guests(
            connection, {port.network_id for found in ports.values() for port in found}
        ),
        disks={row.name: row for row in known},
        arriving={row.volume: row for row in known if row.side == disks.ARRIVING},
        clusters=await reading.cluster_attributes(connection),
    )


def _serving(members: list[ReplicaRow], host: HostName, standing: Collection[HostName]) -> list[ReplicaRow]:
    chosen = serving(members, standing)
    here = [replica for replica in chosen if replica.host == host]
    return here or chosen or [replica for replica in members if replica.desired == "running"]


def _found(value: T | None, what: str) -> T:
    if value is None:
        raise NotFound(f"{what} is gone.")
    return value
