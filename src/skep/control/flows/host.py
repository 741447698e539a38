"""Removing what nobody needs any more from a host."""

from collections.abc import Awaitable, Callable

import msgspec

from skep.control.flows.environment import OnHost
from skep.flow import step
from skep.model.errors import SkepError
from skep.model.ids import ContainerId, DiskId, NetworkId, PortId, ReplicaId, ServiceId, SnapshotId


class Leftovers(msgspec.Struct, frozen=True, kw_only=True):
    """What a host has and no row asks for.  Data disks are never among them."""

    services: list[ServiceId] = []
    containers: list[ContainerId] = []
    ports: list[PortId] = []
    sandboxes: list[ReplicaId] = []
    system_disks: list[DiskId] = []
    networks: list[NetworkId] = []
    snapshots: list[SnapshotId] = []

    @property
    def ids(self) -> list[str]:
        """All of them; ids of different kinds never are the same."""
        return [name for field in self.__struct_fields__ for name in getattr(self, field)]

    @property
    def empty(self) -> bool:
        return not self.ids

    def only(self, wanted: Callable[[str], bool]) -> "Leftovers":
        """Those whose id is wanted."""
        kinds = self.__struct_fields__
        return Leftovers(**{kind: [name for name in getattr(self, kind) if wanted(name)] for kind in kinds})


@step
async def collect(cx: OnHost, leftovers: Leftovers) -> list[str]:
    """Remove them, users before used; answers what could not be removed, to be tried again."""
    host = cx.env.host
    failed: list[str] = []

    async def attempt(what: str, removal: Awaitable[None]) -> None:
        try:
            await removal
        except SkepError as error:
            cx.progress(f"{what}: {error.message}")
            failed.append(what)

    for service in leftovers.services:
        await attempt(f"service {service}", host.fabric.unpublish(service))
    for container in leftovers.containers:
        await attempt(f"container {container}", host.engine.remove(container))
    for port in leftovers.ports:
        await attempt(f"port {port}", host.fabric.unplug(port))
    for replica in leftovers.sandboxes:
        await attempt(f"sandbox {replica}", host.fabric.remove_sandbox(replica))
    for disk in leftovers.system_disks:
        await attempt(f"disk {disk}", host.disks.delete(disk))
    for snapshot in leftovers.snapshots:
        await attempt(f"snapshot {snapshot}", host.disks.delete_snapshot(snapshot))
    for network in leftovers.networks:
        await attempt(f"network {network}", host.fabric.delete_network(network))
    return failed
