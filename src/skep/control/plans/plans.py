"""What a plan says: the difference between a desired release and what is there, as data.  Pure.

`planning.py` makes plans; people are shown them, a release keeps its own, `flows/documents.py` turns one into
a flow, and the steps of `flows/release.py` write its rows.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

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
from skep.model.spec import AppSpec
from skep.store.disks import DiskRow
from skep.store.networks import NetworkRow, PortRow, PublishedRow
from skep.store.replicas import ContainerRow, ReplicaRow, ServiceRow


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """Where an app moves, all of it: a zone that stands on a `cluster`, or some of skep's own."""

    zones: tuple[ZoneName, ...]
    cluster: bool = False

    @property
    def home(self) -> ZoneName | None:
        """The zone of the cluster that the app will run in; None: it runs on skep's own hosts."""
        return self.zones[0] if self.cluster else None

    @property
    def words(self) -> str:
        return f"zone{'s' if len(self.zones) > 1 else ''} {', '.join(map(repr, self.zones))}"


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
    clusters: Mapping[ZoneName, frozenset[str]] = {}
    """Zones that stand on clusters, with what services cannot have there (`model.needs`)."""
    ranges: Mapping[ZoneName, tuple[str, ...]] = {}
    """Of the addresses that services may ask for in them."""
    data: Mapping[DiskId, SnapshotId] = {}
    """Disks that are to go back to what they held, as of these snapshots."""
    destination: Destination | None = None
    """Where the app moves; `disks` has then none that it has where it is."""
    moving: Mapping[str, DiskRow] = {}
    """Those, by name."""


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


class DiskMove(msgspec.Struct, frozen=True, kw_only=True):
    """A data disk of an app that moves, and the one that it has in its stead from then on.

    `copied`: the new one is made, and gets what the old one holds; otherwise it is one that the app left
    there and has again as it was.
    """

    name: str
    source: DiskId
    source_host: HostName
    target: DiskId
    target_host: HostName
    copied: bool = True


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
    in_cluster: bool = False
    """All of it is in a cluster."""
    destination: Destination | None = None
    """Where the app moves; every replica has a stand-in there."""
    moves: tuple[DiskMove, ...] = ()
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
