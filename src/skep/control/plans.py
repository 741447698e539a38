"""Desired release against what is there: a plan that can be shown, stored, and carried out.

Pure: facts and ids in, plan out.  `apps.py` gathers the facts, `flows/app_apply.py` turns the plan into a
flow document, the steps of `flows/release.py` write its rows.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

from skep.control import victims
from skep.control.fitting import disk_must_fit, network_must_fit, networks_changed, port_must_fit
from skep.control.naming import DEFAULT_NETWORK, attachments, disk_name, fingerprint, network_name
from skep.model.errors import Conflict, NotFound
from skep.model.host import ContainerState
from skep.model.ids import (
    AppId,
    Bytes,
    ContainerId,
    DiskId,
    HostName,
    NetworkId,
    PortId,
    ReleaseId,
    ReplicaId,
    ServiceId,
    SnapshotId,
    ZoneName,
)
from skep.model.images import ImageInfo
from skep.model.names import ServiceName
from skep.model.spec import AppNetwork, AppSpec, ServiceSpec
from skep.store.disks import DiskRow
from skep.store.networks import NetworkRow, PortRow, PublishedRow
from skep.store.replicas import ContainerRow, ReplicaRow, ServiceRow

LAST = 1_000


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is there.  `images` holds what is known here already, by service."""

    app: AppId
    version: int
    revision: int
    current: AppSpec | None
    services: tuple[ServiceRow, ...]
    replicas: tuple[ReplicaRow, ...]
    containers: Mapping[ContainerId, ContainerRow]
    ports: tuple[PortRow, ...]
    networks: Mapping[str, NetworkRow]
    default_network: NetworkId
    """The id of the one that all apps of the tenant share, also while it is not there."""
    disks: Mapping[str, DiskRow]
    images: Mapping[str, ImageInfo]
    published: tuple[PublishedRow, ...]
    zones: Mapping[HostName, ZoneName] = {}
    silent: frozenset[HostName] = frozenset()
    """Hosts that do not answer."""
    data: Mapping[DiskId, SnapshotId] = {}
    """Disks that are to go back to what they held, as of these snapshots."""


class NewNetwork(msgspec.Struct, frozen=True, kw_only=True):
    id: NetworkId
    name: str
    subnet: str | None
    gateway: str | None
    internal: bool
    more: tuple[tuple[str, str | None], ...] = ()
    """Further subnets, each with its gateway if that was chosen."""
    enable_ipv6: bool = False
    own: bool
    """Belongs to the app and goes with it; else to the tenant."""


class NewDisk(msgspec.Struct, frozen=True, kw_only=True):
    id: DiskId
    name: str
    size: Bytes
    host: HostName


class NewPort(msgspec.Struct, frozen=True, kw_only=True):
    id: PortId
    network: NetworkId
    names: tuple[str, ...]
    position: int
    address: str | None
    mac: str | None
    new: bool
    address6: str | None = None


class NewSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What a data disk holds before its replica is replaced; `restore`: the way back brings it back.

    `then`: the snapshot that the disk is brought back to, before the replica starts again.
    """

    id: SnapshotId
    disk: DiskId
    restore: bool
    then: SnapshotId | None = None


class ReplicaChange(msgspec.Struct, frozen=True, kw_only=True):
    """create: all new.  update: a new container in the old place.  start: as it is, but it was stopped.
    stand-in: a new replica beside the old one, whose place it takes when the release is finished."""

    action: Literal["create", "update", "stand-in", "start", "remove", "keep"]
    replica: ReplicaId
    service: ServiceName
    ordinal: int
    host: HostName
    container: ContainerId
    previous: ContainerId | None = None
    replaces: ReplicaId | None = None
    """Whose place a stand-in takes; `previous` is its container, on `previous_host`."""
    previous_host: HostName | None = None
    weight: int = 0
    """The share of connections that what was there had until now."""
    snapshots: tuple[NewSnapshot, ...] = ()
    system_disk: DiskId | None = None
    new_system_disk: Bytes | None = None
    """Its size, where the change makes one; None: the system disk of before is kept."""
    ports: tuple[NewPort, ...] = ()
    disks: tuple[str, ...] = ()
    before: Literal["running", "stopped", "ended"] = "running"
    """How a replica that stays was found, for the way back; ended: wanted, but it has exited."""
    reason: str = ""

    @property
    def name(self) -> str:
        return f"{self.service}-{self.ordinal}"


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """A replica that goes to another host, with the ids of what it gets there."""

    replica: ReplicaRow
    target: HostName
    container: ContainerId
    disk: DiskId


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything `apply` will do, with the ids of all it will make."""

    app: AppId
    release: ReleaseId
    revision: int
    base_version: int
    pulls: dict[ServiceName, str] = {}
    images: dict[ServiceName, ImageInfo] = {}
    networks: tuple[NewNetwork, ...] = ()
    disks: tuple[NewDisk, ...] = ()
    services: dict[ServiceName, ServiceId] = {}
    known_services: dict[ServiceName, ServiceId] = {}
    """Those of before."""
    new_services: tuple[ServiceName, ...] = ()
    removed_services: tuple[ServiceId, ...] = ()
    replicas: tuple[ReplicaChange, ...] = ()
    republish: tuple[ServiceName, ...] = ()
    published_before: tuple[PublishedRow, ...] = ()
    """What the services in `republish` and the removed ones published until now."""
    published_on: dict[ServiceId, tuple[HostName, ...]] = {}
    """The hosts that published it."""
    remarks: tuple[str, ...] = ()
    """What people should know before."""
    respecified: bool = False
    """The spec differs from the current one, if only in what touches no replica (`depends_on`)."""
    rollback: bool = False
    """Back to an older release: `rollback_config` counts, not `update_config`."""

    @property
    def empty(self) -> bool:
        return (
            not self.respecified
            and all(change.action == "keep" for change in self.replicas)
            and not self.networks
            and not self.disks
            and not self.new_services
            and not self.removed_services
            and not self.republish
        )


def make_plan(
    facts: Facts,
    spec: AppSpec,
    *,
    new_id: Callable[[], str],
    placing: Mapping[tuple[ServiceName, int], HostName],
    default_disk: Bytes,
    force_recreate: bool = False,
) -> Plan:
    """Compare and decide.  An image that is not here yet is pulled, and its service's replicas re-created.

    `placing` has a host for every replica that is not there yet, and for every stand-in (`placing.assign`).

    Raises:
        NotFound: an external network or volume does not exist.
        Conflict: a network or disk of that name is another app's, or would have to change.
    """
    return _Planner(facts, spec, new_id, placing, default_disk, force_recreate).plan()


def ordinals(facts: Facts, spec: AppSpec, name: ServiceName) -> list[int]:
    """Of the replicas that the service will have; they need not follow each other."""
    present = [row for row in facts.replicas if row.service == name and not row.stand_in]
    return victims.ordinals(spec.services[name], present, facts.zones, facts.silent)


def found(row: ReplicaRow) -> Literal["running", "stopped", "ended"]:
    """What a failed change has to bring back."""
    if row.desired != "running":
        return "stopped"
    return "ended" if row.status is not None and row.status.state is ContainerState.EXITED else "running"


def difference(facts: Facts, spec: AppSpec, row: ReplicaRow, force_recreate: bool) -> str:
    """Why the replica needs a new container; empty if it does not."""
    name = ServiceName(row.service)
    image = facts.images.get(name)
    if force_recreate:
        return "asked for"
    if image is None:
        return "its image has to be pulled"
    if facts.containers[row.container_id].fingerprint == fingerprint(spec, name, image.digest):
        return "its data goes back" if _goes_back(facts, spec, row) else ""
    before = facts.current.services.get(name) if facts.current else None
    changed = _changed_fields(before, spec.services[name])
    return f"changed: {', '.join(changed)}" if changed else "its image, files or networks changed"


def _goes_back(facts: Facts, spec: AppSpec, row: ReplicaRow) -> bool:
    mounts = [one for one in spec.services[ServiceName(row.service)].mounts if one.type == "volume"]
    names = [disk_name(spec.name, row.service, row.ordinal, mount, spec) for mount in mounts]
    return any(facts.disks[name].id in facts.data for name in names if name in facts.disks)


def _position(port: PortRow | None) -> int:
    """A replica's new networks come after those it has."""
    return port.position if port is not None else LAST


class _Planner:
    def __init__(
        self,
        facts: Facts,
        spec: AppSpec,
        new_id: Callable[[], str],
        placing: Mapping[tuple[ServiceName, int], HostName],
        default_disk: Bytes,
        force_recreate: bool,
    ) -> None:
        self.facts = facts
        self.spec = spec
        self.new_id = new_id
        self.placing = placing
        self.default_disk = default_disk
        self.force_recreate = force_recreate
        self.new_networks: dict[str, NewNetwork] = {}
        self.new_disks: dict[str, NewDisk] = {}
        self.known_services = {ServiceName(row.name): row.id for row in facts.services}

    def plan(self) -> Plan:
        self._all_must_fit()
        replicas = [change for name in self.spec.services for change in self._service(name)]
        replicas += [
            self._removal(row) for row in self.facts.replicas if row.service not in self.spec.services
        ]
        for volume in self.spec.volumes.values():
            if volume.external and volume.external not in self.facts.disks:
                raise NotFound(f"The external volume {volume.external!r} does not exist; see 'skep disk ls'.")
        republish = tuple(name for name in self.spec.services if self._ports_changed(name))
        removed = {row.id for row in self.facts.services if ServiceName(row.name) not in self.spec.services}
        before = [
            row
            for row in self.facts.published
            if row.service_id in {self.known_services.get(name) for name in republish} | removed
        ]
        return Plan(
            app=self.facts.app,
            release=ReleaseId(self.new_id()),
            revision=self.facts.revision + 1,
            base_version=self.facts.version,
            pulls={n: s.image for n, s in self.spec.services.items() if n not in self.facts.images},
            images={ServiceName(n): info for n, info in self.facts.images.items()},
            networks=tuple(self.new_networks.values()),
            disks=tuple(self.new_disks.values()),
            services={
                name: self.known_services.get(name) or ServiceId(self.new_id()) for name in self.spec.services
            },
            known_services=self.known_services,
            new_services=tuple(name for name in self.spec.services if name not in self.known_services),
            removed_services=tuple(
                row.id for row in self.facts.services if ServiceName(row.name) not in self.spec.services
            ),
            replicas=tuple(replicas),
            republish=republish,
            published_before=tuple(before),
            published_on={row.service_id: self._hosts_of(row.service_id) for row in before},
            respecified=self.facts.current != self.spec,
        )

    def _service(self, name: ServiceName) -> list[ReplicaChange]:
        wanted = ordinals(self.facts, self.spec, name)
        present = {row.ordinal: row for row in self.facts.replicas if row.service == name}
        changes = [
            self._existing(present[ordinal]) if ordinal in present else self._creation(name, ordinal)
            for ordinal in wanted
        ]
        return changes + [
            self._removal(row) for ordinal, row in sorted(present.items()) if ordinal not in wanted
        ]

    def _creation(self, name: ServiceName, ordinal: int) -> ReplicaChange:
        host = self.placing[name, ordinal]
        return ReplicaChange(
            action="create",
            replica=ReplicaId(self.new_id()),
            service=name,
            ordinal=ordinal,
            host=host,
            container=ContainerId(self.new_id()),
            system_disk=DiskId(self.new_id()),
            new_system_disk=self._system_disk_size(name),
            ports=self._ports(name, ordinal, None),
            disks=self._disks(name, ordinal, host),
        )

    def _existing(self, row: ReplicaRow) -> ReplicaChange:
        name = ServiceName(row.service)
        reason = difference(self.facts, self.spec, row, self.force_recreate)
        if reason and (name, row.ordinal) in self.placing:
            return self._stand_in(row, reason)
        action: Literal["update", "start", "keep"] = "update" if reason else "keep"
        if not reason and row.desired != "running":
            action, reason = "start", "it was stopped"
        if action != "update":
            return ReplicaChange(
                action=action,
                replica=row.id,
                service=name,
                ordinal=row.ordinal,
                host=row.host,
                container=row.container_id,
                before=found(row),
                reason=reason,
            )
        keep_disk = self.spec.services[name].x_skep.keep_system_disk
        return ReplicaChange(
            action="update",
            replica=row.id,
            service=name,
            ordinal=row.ordinal,
            host=row.host,
            container=ContainerId(self.new_id()),
            previous=row.container_id,
            system_disk=self.facts.containers[row.container_id].system_disk
            if keep_disk
            else DiskId(self.new_id()),
            new_system_disk=None if keep_disk else self._system_disk_size(name),
            ports=self._ports(name, row.ordinal, row.id),
            disks=self._disks(name, row.ordinal, row.host),
            snapshots=self._snapshots(name, row.ordinal),
            weight=row.weight,
            before=found(row),
            reason=reason,
        )

    def _stand_in(self, row: ReplicaRow, reason: str) -> ReplicaChange:
        made = self._creation(ServiceName(row.service), row.ordinal)
        return msgspec.structs.replace(
            made,
            action="stand-in",
            replaces=row.id,
            previous=row.container_id,
            previous_host=row.host,
            weight=row.weight,
            before=found(row),
            reason=reason,
        )

    def _snapshots(self, name: ServiceName, ordinal: int) -> tuple[NewSnapshot, ...]:
        """Of every data disk it writes to; one that others use, too, is not brought back under them."""
        used = Counter(
            disk
            for service in self.spec.services
            for number in ordinals(self.facts, self.spec, service)
            for disk in {disk for disk, _ in self._mounted(service, number)}
        )
        return tuple(
            NewSnapshot(
                id=SnapshotId(self.new_id()),
                disk=self.facts.disks[disk].id,
                restore=used[disk] == 1,
                then=self.facts.data.get(self.facts.disks[disk].id) if used[disk] == 1 else None,
            )
            for disk in sorted({disk for disk, writes in self._mounted(name, ordinal) if writes})
            if disk in self.facts.disks
        )

    def _mounted(self, name: ServiceName, ordinal: int) -> list[tuple[str, bool]]:
        """Names of data disks, and whether they are written to."""
        return [
            (disk_name(self.spec.name, name, ordinal, mount, self.spec), not mount.read_only)
            for mount in self.spec.services[name].mounts
            if mount.type == "volume"
        ]

    def _hosts_of(self, service: ServiceId) -> tuple[HostName, ...]:
        return tuple(sorted({row.host for row in self.facts.replicas if row.service_id == service}))

    def _system_disk_size(self, name: ServiceName) -> Bytes:
        return Bytes(self.spec.services[name].x_skep.system_disk or self.default_disk)

    def _removal(self, row: ReplicaRow) -> ReplicaChange:
        return ReplicaChange(
            action="remove",
            replica=row.id,
            service=ServiceName(row.service),
            ordinal=row.ordinal,
            host=row.host,
            container=row.container_id,
            weight=row.weight,
            before=found(row),
        )

    def _ports(self, name: ServiceName, ordinal: int, replica: ReplicaId | None) -> tuple[NewPort, ...]:
        """The replica's NICs; those it has already keep their id, place, address and MAC."""
        present = {port.network_id: port for port in self.facts.ports if port.replica_id == replica}
        wanted = [
            (self._network(network), network, place)
            for network, place in attachments(self.spec.services[name])
        ]
        wanted.sort(key=lambda item: (-item[2].priority, _position(present.get(item[0]))))
        result = []
        for position, (network_id, network, place) in enumerate(wanted):
            old = present.get(network_id)
            if old is not None:
                port_must_fit(old, f"{name}-{ordinal}", network, position, place)
            result.append(
                NewPort(
                    id=old.id if old else PortId(self.new_id()),
                    network=network_id,
                    names=(f"{name}-{ordinal}", name, *place.aliases),
                    position=position,
                    address=place.ipv4_address,
                    mac=place.mac_address,
                    address6=place.ipv6_address,
                    new=old is None,
                )
            )
        places = {port.position for port in result if port.new}
        if any(old.position in places for old in present.values()):
            raise networks_changed(f"{name}-{ordinal}")
        return tuple(result)

    def _network(self, key: str) -> NetworkId:
        name = network_name(self.spec.name, key, self.spec)
        declared = self.spec.networks.get(key)
        if name in self.facts.networks:
            return self.facts.networks[name].id
        if declared is not None and declared.external and name != DEFAULT_NETWORK:
            raise NotFound(
                f"The external network {name!r} does not exist, or is not shared with you; see 'skep net ls'."
            )
        if name not in self.new_networks:
            self.new_networks[name] = NewNetwork(
                id=self.facts.default_network if name == DEFAULT_NETWORK else NetworkId(self.new_id()),
                name=name,
                subnet=declared.subnet if declared else None,
                gateway=declared.gateway if declared else None,
                internal=declared.internal if declared else False,
                more=tuple((one.subnet, one.gateway) for one in declared.subnets) if declared else (),
                enable_ipv6=declared.enable_ipv6 if declared else False,
                own=name != DEFAULT_NETWORK,
            )
        return self.new_networks[name].id

    def _disks(self, name: ServiceName, ordinal: int, host: HostName) -> tuple[str, ...]:
        """Names of the data disks the replica needs; the missing ones join the plan."""
        names = []
        for mount in self.spec.services[name].mounts:
            if mount.type != "volume":
                continue
            disk = disk_name(self.spec.name, name, ordinal, mount, self.spec)
            names.append(disk)
            volume = self.spec.volumes.get(mount.source)
            self._must_be_on(disk, host, f"{name}-{ordinal}")
            if disk not in self.facts.disks and disk not in self.new_disks:
                size = Bytes(volume.size) if volume and volume.size else self.default_disk
                self.new_disks[disk] = NewDisk(id=DiskId(self.new_id()), name=disk, size=size, host=host)
        return tuple(names)

    def _must_be_on(self, disk: str, host: HostName, replica: str) -> None:
        known = self.facts.disks.get(disk) or self.new_disks.get(disk)
        if known is not None and known.host != host:
            raise Conflict(
                f"{replica} runs on host {host}, and disk {disk!r} is on host {known.host}. Scale its "
                "service down, and apply again: what is new is placed where its disks are."
            )

    def _all_must_fit(self) -> None:
        for name, service in self.spec.services.items():
            for key, _ in attachments(service):
                network = self.facts.networks.get(network_name(self.spec.name, key, self.spec))
                declared = self.spec.networks.get(key) or AppNetwork()
                if network is not None and network.name != DEFAULT_NETWORK and not declared.external:
                    network_must_fit(network, self.facts.app, declared)
            for mount in service.mounts:
                volume = self.spec.volumes.get(mount.source)
                if mount.type == "volume" and not (volume and volume.external):
                    before = self.facts.current.volumes.get(mount.source) if self.facts.current else None
                    for ordinal in ordinals(self.facts, self.spec, name):
                        disk = self.facts.disks.get(
                            disk_name(self.spec.name, name, ordinal, mount, self.spec)
                        )
                        disk_must_fit(disk, self.facts.app, before, volume)

    def _ports_changed(self, name: ServiceName) -> bool:
        before = self.facts.current.services.get(name) if self.facts.current else None
        wanted = self.spec.services[name]
        return (before.ports if before else ()) != wanted.ports or (
            bool(wanted.ports) and before is not None and before.replicas != wanted.replicas
        )


def _changed_fields(before: ServiceSpec | None, after: ServiceSpec) -> list[str]:
    if before is None:
        return []
    return [
        field
        for field in after.__struct_fields__
        if field not in ("replicas", "ports", "depends_on")
        and getattr(before, field) != getattr(after, field)
    ]
