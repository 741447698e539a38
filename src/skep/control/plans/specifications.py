"""Rows as hosts are told them: containers, networks, ports.

Pure: what a service wants, merged with what its image says, as the common engines merge them.
"""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import msgspec

from skep.control.naming import attachments, disk_name, network_name
from skep.control.plans.fixed_addresses import of_service
from skep.control.plans.subnets import of_family
from skep.model.errors import NotFound
from skep.model.host import (
    ContainerFile,
    ContainerMount,
    ContainerSpec,
    DiskSpec,
    HostSubnet,
    HostSubnet6,
    NetworkConfig,
    NodePlacement,
    PortConfig,
)
from skep.model.ids import Bytes, HostName, PortId, ReplicaId, Seconds
from skep.model.images import ImageConfig
from skep.model.names import ServiceName
from skep.model.placement import left_to_nodes, parse_constraint, tells_nodes_apart
from skep.model.spec import AppSpec, FileMount, HealthCheck, Mount, ServiceSpec
from skep.store.disks import DiskRow
from skep.store.networks import NetworkRow, PortRow
from skep.store.releases import ReleaseRow
from skep.store.replicas import ContainerRow, ReplicaRow

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica gets that asks for nothing."""

    memory: Bytes = Bytes(2 * 1024**3)
    pids: int = 2048


class ReleaseFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the containers of one release are made of; networks and disks are the tenant's, by name.

    `arriving`: those that stand-ins have instead while their app moves, by volume.
    `guests` has the tenant's name for ports in networks of others.  `clusters`: the attributes of each host
    that is one.
    """

    containers: list[ContainerRow]
    replicas: dict[ReplicaId, ReplicaRow]
    ports: dict[ReplicaId, list[PortRow]]
    networks: dict[str, NetworkRow]
    guests: dict[PortId, str]
    disks: dict[str, DiskRow]
    arriving: dict[str, DiskRow] = {}
    clusters: dict[HostName, Mapping[str, str]] = {}


def container_of(
    row: ContainerRow,
    replica: ReplicaRow,
    release: ReleaseRow,
    ports: list[PortRow],
    facts: ReleaseFacts,
    limits: Limits,
) -> ContainerSpec:
    spec = release.spec
    service = spec.services[ServiceName(replica.service)]
    names = [network_name(spec.name, name, spec) for name, _ in attachments(service)]
    by_network = {port.network_id: port for port in ports}
    attached = [facts.networks[name] for name in names if name in facts.networks]
    attached = [network for network in attached if network.id in by_network]
    in_cluster = replica.host in facts.clusters
    return msgspec.structs.replace(
        container_spec(row, replica, release, limits),
        mounts=tuple(
            _mount(mount, release, replica, facts.disks | (facts.arriving if replica.stand_in else {}))
            for mount in sorted(service.mounts, key=lambda mount: mount.target.count("/"))
        ),
        ports=tuple(by_network[network.id].id for network in attached),
        nameserver=IPv4Address(attached[0].gateway) if attached else None,
        fixed=of_service(service) if in_cluster else None,
        networks={network.id: by_network[network.id].position == 0 for network in attached}
        if in_cluster
        else {},
        placement=node_placement(service, facts.clusters.get(replica.host)),
    )


def node_placement(service: ServiceSpec, cluster: Mapping[str, str] | None) -> NodePlacement | None:
    """What is left to the nodes of the cluster with these attributes.

    None: nothing is, or the host is no cluster: then all of it was decided when the host was chosen.
    """
    if cluster is None:
        return None
    wanted = service.placement
    asked = map(parse_constraint, wanted.constraints)
    found = NodePlacement(
        constraints=tuple(one for one in asked if left_to_nodes(one, cluster)),
        spread=tuple(key for key in wanted.spread if tells_nodes_apart(key, cluster)),
        alone=wanted.max_per_host == 1,
        pack=service.x_skep.pack,
    )
    return None if found == NodePlacement() else found


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
        priority=service.x_skep.priority,
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
        more=tuple(
            HostSubnet(cidr=IPv4Network(one.cidr), gateway=IPv4Address(one.gateway))
            for one in of_family(row, 4)[1:]
        ),
        ipv6=next(
            (
                HostSubnet6(cidr=IPv6Network(one.cidr), gateway=IPv6Address(one.gateway))
                for one in of_family(row, 6)
            ),
            None,
        ),
    )


def disk_spec(row: DiskRow) -> DiskSpec:
    return DiskSpec(
        id=row.id,
        size=row.size,
        kind="data" if row.kind == "data" else "system",
        tenant=row.tenant_id,
    )


def port_config(row: PortRow, app: str) -> PortConfig:
    """`app` as names have it on the network (`naming.scope`)."""
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
        address6=None if row.address6 is None else IPv6Address(row.address6),
    )


def _mount(
    mount: Mount, release: ReleaseRow, replica: ReplicaRow, disks_by_name: dict[str, DiskRow]
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
    if name not in disks_by_name:
        raise NotFound(f"Disk {name!r} is gone.")
    return ContainerMount(
        target=mount.target, disk=disks_by_name[name].id, read_only=mount.read_only, copy_up=not mount.nocopy
    )


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
