"""A cluster as control sees a host: all its parts over one connection.

What runs there goes on when it is left, and is found again by whoever enters it next.
"""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lightkube.resources.apps_v1 import Deployment, StatefulSet
from lightkube.resources.core_v1 import Namespace, Node, PersistentVolumeClaim, Pod
from lightkube.resources.storage_v1 import StorageClass

from skep.model.clusters import ClusterAccess, ClusterOffers
from skep.model.host import ContainerStatus, DiskSpec, HostFacts
from skep.model.ids import Bytes, ContainerId, DiskId
from skep.model.topology import HostLoad
from skep.providers.kubernetes.client import access
from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.client.side_by_side import side_by_side
from skep.providers.kubernetes.client.watching import Watched
from skep.providers.kubernetes.disks.claims import is_default
from skep.providers.kubernetes.disks.keeping import snapshot_classes
from skep.providers.kubernetes.disks.pool import ClaimPool
from skep.providers.kubernetes.disks.porter_image import PorterImage
from skep.providers.kubernetes.images import ClusterImages
from skep.providers.kubernetes.joining.addressing import Addressing, addressing
from skep.providers.kubernetes.joining.facts import SYSTEM, machine_of
from skep.providers.kubernetes.joining.lacking import lacks
from skep.providers.kubernetes.joining.snapshots import chosen
from skep.providers.kubernetes.network.edge import ClusterEdge, entrance
from skep.providers.kubernetes.network.entrances import Entrance
from skep.providers.kubernetes.network.fabric import ClusterFabric
from skep.providers.kubernetes.network.pod_dns import nameserver
from skep.providers.kubernetes.network.tenancies import Tenancies
from skep.providers.kubernetes.pods.engine import ClusterEngine
from skep.providers.kubernetes.tenants import pulling
from skep.providers.kubernetes.tenants.tenants import Tenants
from skep.providers.local.images.repository import Repository
from skep.providers.local.spool import FolderSpool

_FOLLOWED: tuple[type[Any], ...] = (Pod, PersistentVolumeClaim, Deployment, StatefulSet)
"""By parts of it that are entered one after the other: listed at the same time, from the start."""


class Supplies(Protocol):
    """What a cluster asks control for."""

    async def file(self, digest: str) -> bytes: ...
    async def certificate(self, digest: str) -> bytes: ...
    async def disk(self, disk: DiskId) -> DiskSpec: ...


class Events(Protocol):
    async def observed(self, status: ContainerStatus) -> None: ...
    async def removed(self, container: ContainerId) -> None: ...


@dataclass(frozen=True)
class ClusterHost:
    """Satisfies `Host` of control."""

    cluster: Cluster
    identity: str
    nodes: Watched[Node]
    engine: ClusterEngine
    disks: ClaimPool
    fabric: ClusterFabric
    edge: ClusterEdge
    images: ClusterImages
    spool: FolderSpool
    entrance: Entrance | None
    """What leads requests into the cluster, as it was when the host was entered."""
    addressing: Addressing
    """What gives pods fixed addresses, as it was then."""

    @property
    def facts(self) -> HostFacts:
        """As its nodes are now."""
        return machine_of(self.nodes.all(), self.identity)

    async def measure(self) -> HostLoad:
        """A sign of life; there are as many disks as are asked for, so nothing is said of a total.

        Raises Unavailable: its API server does not answer.
        """
        await self.cluster.answers()
        return HostLoad(disk_used=(await self.disks.usage()).used)

    async def changed(self, known: ClusterOffers) -> ClusterOffers | None:
        """What apps can and cannot have there now, if that is not what is `known`; None: all is as before.

        Something else may lead requests into it than before, or give pods addresses: that is news, too, for
        whoever enters it next.
        """
        now = await offers(self.cluster)
        await self.disks.look()
        same = (now.entrance, now.addressing.plugin) == (self.entrance, self.addressing.plugin)
        return None if same and now.to_apps == known else now.to_apps


@dataclass(frozen=True)
class Offers:
    """What a cluster has now: classes of disks, what leads requests into it, what gives pods addresses."""

    volumes: bool
    snapshots: bool
    entrance: Entrance | None
    addressing: Addressing

    @property
    def to_apps(self) -> ClusterOffers:
        found = lacks(
            volumes=self.volumes,
            snapshots=self.snapshots,
            entrance=self.entrance is not None,
            addressing=self.addressing,
        )
        return ClusterOffers(lacks=found, ranges=self.addressing.ranges)


async def offers(cluster: Cluster) -> Offers:
    usual = next((one for one in await cluster.list(StorageClass, labels={}) if is_default(one)), None)
    kept = chosen(await snapshot_classes(cluster), usual.provisioner) if usual else None
    return Offers(usual is not None, kept is not None, await entrance(cluster), await addressing(cluster))


async def cluster_host(
    stack: AsyncExitStack,
    where: ClusterAccess,
    *,
    folder: Path,
    supplies: Supplies,
    events: Events,
    insecure: tuple[str, ...] = (),
) -> ClusterHost:
    """Everything of the installation in the cluster is adopted; it goes on when the stack is closed.

    `folder`: for what is on its way to the registry or waits for its run; `insecure`: registries that may
    speak plain HTTP.
    Raises:
        Unavailable: the cluster does not answer.  Forbidden: it does not let skep in, or do what it must.
    """
    cluster = await stack.enter_async_context(Cluster(access.read(where.kubeconfig, where.context), where.id))
    system = await cluster.get(Namespace, SYSTEM)
    nodes = await cluster.watched(Node, labels={})
    for kind in _FOLLOWED:
        await cluster.watched(kind)
    led, given, resolver, _ = await side_by_side(
        entrance(cluster),
        addressing(cluster),
        nameserver(cluster),
        nodes.synced(),
    )
    images = ClusterImages(
        Repository(where.registry, where.credentials, insecure), folder / "images", insecure
    )
    tenants = Tenants(cluster, furnish=pulling.furnishing(where.registry, where.credentials))
    tenancies = await stack.enter_async_context(Tenancies(cluster, tenants, supplies.certificate, led))
    disks = await stack.enter_async_context(
        ClaimPool(cluster, tenants, PorterImage(images, folder / "porter"))
    )
    fabric = ClusterFabric(tenancies)

    async def size(disk: DiskId) -> Bytes | None:
        """Of a system disk, which only control knows once another process leads the cluster."""
        known = disks.system_disk(disk)
        return known if known is not None else (await supplies.disk(disk)).size

    engine = await stack.enter_async_context(
        ClusterEngine(
            cluster=cluster,
            images=images,
            supplies=supplies,
            events=events,
            claim=disks.claim,
            size=size,
            fabric=fabric,
            nameserver=resolver,
            nodes=nodes,
            addressing=given.plugin,
        )
    )
    cluster.led()
    return ClusterHost(
        cluster=cluster,
        identity=(system.metadata and system.metadata.uid) or "",
        nodes=nodes,
        engine=engine,
        disks=disks,
        fabric=fabric,
        edge=ClusterEdge(tenancies),
        images=images,
        spool=FolderSpool(_spool(folder)),
        entrance=led,
        addressing=given,
    )


def _spool(folder: Path) -> Path:
    spool = folder / "spool"
    spool.mkdir(parents=True, exist_ok=True, mode=0o700)
    return spool
