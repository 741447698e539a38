"""What is missing and what is too much, decided purely from what was read."""

from collections.abc import Collection, Mapping, Set

import msgspec

from skep.control.flows.host import Leftovers
from skep.model.host import ContainerState, ContainerStatus, DiskUsage, Health
from skep.model.ids import ContainerId, DiskId, NetworkId, PortId, ReplicaId, ServiceId, SnapshotId
from skep.store.networks import PortRow
from skep.store.replicas import ReplicaRow


class HostState(msgspec.Struct, frozen=True, kw_only=True):
    """What one host really has.  Read before the rows: what is made later is in neither."""

    containers: Mapping[ContainerId, ContainerStatus]
    ports: Set[PortId]
    sandboxes: Set[ReplicaId]
    networks: Set[NetworkId]
    services: Set[ServiceId]
    disks: Mapping[DiskId, DiskUsage]
    snapshots: Set[SnapshotId] = frozenset()


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """Every id that the store knows of, of the kinds hosts have; of services those that run on the host."""

    containers: Set[ContainerId]
    ports: Set[PortId]
    replicas: Set[ReplicaId]
    networks: Set[NetworkId]
    services: Set[ServiceId]
    disks: Set[DiskId]
    snapshots: Set[SnapshotId] = frozenset()


def missing(
    replicas: Collection[ReplicaRow],
    ports: Mapping[ReplicaId, Collection[PortRow]],
    state: HostState,
    endless: Set[ContainerId] = frozenset(),
) -> list[tuple[ReplicaRow, bool]]:
    """Replicas to restore; True: their process must be a new one, since its network sandbox is lost.

    `endless`: what never ends by itself.  If it has, it was stopped for something that did not come about.
    """
    result = []
    for replica in replicas:
        if replica.desired != "running":
            continue
        status = state.containers.get(replica.container_id)
        unplugged = any(port.id not in state.ports for port in ports.get(replica.id, ()))
        if status is None or _lost(status) or (replica.container_id in endless and _ended(status)):
            result.append((replica, False))
        elif unplugged and status.state is not ContainerState.EXITED:
            result.append((replica, replica.id not in state.sandboxes))
    return result


def _lost(status: ContainerStatus) -> bool:
    """It ended unseen, as by a reboot; one that was seen to end has an exit code and its policy's answer."""
    return status.state is ContainerState.EXITED and status.exit_code is None


def ended(replicas: Collection[ReplicaRow], state: HostState) -> list[ReplicaRow]:
    """Those that are to run and whose container has ended."""
    found = ((row, state.containers.get(row.container_id)) for row in replicas)
    return [
        row for row, status in found if row.desired == "running" and status is not None and _ended(status)
    ]


def _ended(status: ContainerStatus) -> bool:
    return status.state is ContainerState.EXITED


def vanished(replicas: Collection[ReplicaRow], state: HostState) -> list[ContainerStatus]:
    """What is to be shown of containers that were seen before and that their host no longer has."""
    return [
        msgspec.structs.replace(
            replica.status,
            state=ContainerState.EXITED,
            health=Health.NONE,
            pid=None,
            exit_code=None,
            error=f"Its container is gone from {replica.host} and is being made again.",
        )
        for replica in replicas
        if replica.desired == "running"
        and replica.status is not None
        and replica.status.id == replica.container_id
        and replica.status.state is not ContainerState.EXITED
        and replica.container_id not in state.containers
    ]


def leftovers(state: HostState, rows: Rows) -> Leftovers:
    """What the host has and no row asks for."""
    return Leftovers(
        services=sorted(state.services - rows.services),
        containers=sorted(set(state.containers) - rows.containers),
        ports=sorted(state.ports - rows.ports),
        sandboxes=sorted(state.sandboxes - rows.replicas),
        system_disks=sorted(
            disk for disk, usage in state.disks.items() if usage.kind == "system" and disk not in rows.disks
        ),
        networks=sorted(state.networks - rows.networks),
        snapshots=sorted(state.snapshots - rows.snapshots),
    )
