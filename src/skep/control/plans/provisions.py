"""What a replica needs beside its container: networks and NICs, disks and snapshots.  Pure.

What is there is used as it is, or refused; what is not joins the plan.
"""

from collections import Counter
from collections.abc import Callable

from skep.control.naming import DEFAULT_NETWORK, attachments, disk_name, network_name
from skep.control.plans.comparing import ordinals
from skep.control.plans.fitting import disk_must_fit, network_must_fit, networks_changed, port_must_fit
from skep.control.plans.homes import keeps_snapshots
from skep.control.plans.plans import Facts, NewDisk, NewNetwork, NewPort, NewSnapshot
from skep.model.errors import Conflict, NotFound
from skep.model.ids import Bytes, DiskId, HostName, NetworkId, PortId, ReplicaId, SnapshotId
from skep.model.names import ServiceName
from skep.model.spec import AppNetwork, AppSpec
from skep.store.networks import PortRow

LAST = 1_000


class Provisions:
    """Of one plan; `networks` and `disks` are those that it has to make, by name."""

    def __init__(self, facts: Facts, spec: AppSpec, new_id: Callable[[], str], default_disk: Bytes) -> None:
        self._facts = facts
        self._spec = spec
        self._new_id = new_id
        self._default_disk = default_disk
        self.networks: dict[str, NewNetwork] = {}
        self.disks: dict[str, NewDisk] = {}

    def snapshots_of(self, name: ServiceName, ordinal: int) -> tuple[NewSnapshot, ...]:
        """Of every data disk it writes to that has any; one that others use, too, is not brought back."""
        used = Counter(
            disk
            for service in self._spec.services
            for number in ordinals(self._facts, self._spec, service)
            for disk in {disk for disk, _ in self._mounted(service, number)}
        )
        return tuple(
            NewSnapshot(
                id=SnapshotId(self._new_id()),
                disk=self._facts.disks[disk].id,
                restore=used[disk] == 1,
                then=self._facts.data.get(self._facts.disks[disk].id) if used[disk] == 1 else None,
            )
            for disk in sorted({disk for disk, writes in self._mounted(name, ordinal) if writes})
            if disk in self._facts.disks and keeps_snapshots(self._facts, self._facts.disks[disk].host)
        )

    def _mounted(self, name: ServiceName, ordinal: int) -> list[tuple[str, bool]]:
        """Names of data disks, and whether they are written to."""
        return [
            (disk_name(self._spec.name, name, ordinal, mount, self._spec), not mount.read_only)
            for mount in self._spec.services[name].mounts
            if mount.type == "volume"
        ]

    def system_disk_size(self, name: ServiceName) -> Bytes:
        return Bytes(self._spec.services[name].x_skep.system_disk or self._default_disk)

    def ports_of(self, name: ServiceName, ordinal: int, replica: ReplicaId | None) -> tuple[NewPort, ...]:
        """The replica's NICs; those it has already keep their id, place, address and MAC."""
        present = {port.network_id: port for port in self._facts.ports if port.replica_id == replica}
        wanted = [
            (self._network(network), network, place)
            for network, place in attachments(self._spec.services[name])
        ]
        wanted.sort(key=lambda item: (-item[2].priority, _position(present.get(item[0]))))
        result = []
        for position, (network_id, network, place) in enumerate(wanted):
            old = present.get(network_id)
            if old is not None:
                port_must_fit(old, f"{name}-{ordinal}", network, position, place)
            result.append(
                NewPort(
                    id=old.id if old else PortId(self._new_id()),
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
        name = network_name(self._spec.name, key, self._spec)
        declared = self._spec.networks.get(key)
        if name in self._facts.networks:
            return self._facts.networks[name].id
        if declared is not None and declared.external and name != DEFAULT_NETWORK:
            raise NotFound(
                f"The external network {name!r} does not exist, or is not shared with you; see 'skep net ls'."
            )
        if name not in self.networks:
            self.networks[name] = NewNetwork(
                id=self._facts.default_network if name == DEFAULT_NETWORK else NetworkId(self._new_id()),
                name=name,
                subnet=declared.subnet if declared else None,
                gateway=declared.gateway if declared else None,
                internal=declared.internal if declared else False,
                more=tuple((one.subnet, one.gateway) for one in declared.subnets) if declared else (),
                enable_ipv6=declared.enable_ipv6 if declared else False,
                own=name != DEFAULT_NETWORK,
            )
        return self.networks[name].id

    def disks_of(self, name: ServiceName, ordinal: int, host: HostName) -> tuple[str, ...]:
        """Names of the data disks the replica needs; the missing ones join the plan."""
        names = []
        for mount in self._spec.services[name].mounts:
            if mount.type != "volume":
                continue
            disk = disk_name(self._spec.name, name, ordinal, mount, self._spec)
            names.append(disk)
            volume = self._spec.volumes.get(mount.source)
            self._must_be_on(disk, host, f"{name}-{ordinal}")
            if disk not in self._facts.disks and disk not in self.disks:
                size = Bytes(volume.size) if volume and volume.size else self._default_disk
                if disk in self._facts.moving:
                    size = self._facts.moving[disk].size
                self.disks[disk] = NewDisk(id=DiskId(self._new_id()), name=disk, size=size, host=host)
        return tuple(names)

    def _must_be_on(self, disk: str, host: HostName, replica: str) -> None:
        known = self._facts.disks.get(disk) or self.disks.get(disk)
        if known is not None and known.host != host:
            raise Conflict(
                f"{replica} runs on host {host}, and disk {disk!r} is on host {known.host}. Scale its "
                "service down, and apply again: what is new is placed where its disks are."
            )

    def must_fit(self) -> None:
        """Raises Conflict: a network or disk is another app's, or would have to change."""
        for name, service in self._spec.services.items():
            for key, _ in attachments(service):
                network = self._facts.networks.get(network_name(self._spec.name, key, self._spec))
                declared = self._spec.networks.get(key) or AppNetwork()
                if network is not None and network.name != DEFAULT_NETWORK and not declared.external:
                    network_must_fit(network, self._facts.app, declared)
            for mount in service.mounts:
                volume = self._spec.volumes.get(mount.source)
                if mount.type == "volume" and not (volume and volume.external):
                    before = self._facts.current.volumes.get(mount.source) if self._facts.current else None
                    for ordinal in ordinals(self._facts, self._spec, name):
                        disk = self._facts.disks.get(
                            disk_name(self._spec.name, name, ordinal, mount, self._spec)
                        )
                        shrinks = disk is None or self._facts.zones.get(disk.host) not in self._facts.clusters
                        disk_must_fit(disk, self._facts.app, before, volume, shrinks=shrinks)

    def externals_must_exist(self) -> None:
        """Raises NotFound."""
        for volume in self._spec.volumes.values():
            if volume.external and volume.external not in self._facts.disks:
                raise NotFound(f"The external volume {volume.external!r} does not exist; see 'skep disk ls'.")


def _position(port: PortRow | None) -> int:
    """A replica's new networks come after those it has."""
    return port.position if port is not None else LAST
