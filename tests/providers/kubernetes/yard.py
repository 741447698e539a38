"""A namespace of a test's own in the test cluster, with an engine over it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from lightkube.config.kubeconfig import SingleConfig
from lightkube.resources.core_v1 import Node
from tests.cluster.kubernetes import images
from tests.cluster.kubernetes.cluster import Cluster as ACluster

from skep.model.errors import NotFound
from skep.model.host import ContainerSpec, ContainerStatus
from skep.model.ids import Bytes, ContainerId, Digest, DiskId, ReplicaId, Seconds, TenantId, new_id
from skep.model.images import ImageConfig, ImageInfo
from skep.model.spec import RestartPolicy
from skep.providers.kubernetes.client import access
from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.joining.addressing import Plugin
from skep.providers.kubernetes.pods.engine import ClusterEngine

BUSYBOX = Digest("sha256:" + "b" * 64)
NEVER = RestartPolicy(condition="no")
ALWAYS = RestartPolicy(condition="always")


class NodesImages:
    """What every node of the test cluster has already."""

    def reference(self, digest: Digest) -> str:
        return images.BUSYBOX

    async def info(self, digest: Digest) -> ImageInfo:
        if digest != BUSYBOX:
            raise NotFound(f"There is no image {digest}.")
        return ImageInfo(digest=digest, config=ImageConfig(), layers=(), size=Bytes(0))


@dataclass
class Heard:
    """Takes note of what control would be told, and has the files it would send."""

    files: dict[str, bytes] = field(default_factory=dict)
    statuses: list[ContainerStatus] = field(default_factory=list)
    gone: list[ContainerId] = field(default_factory=list)

    async def observed(self, status: ContainerStatus) -> None:
        self.statuses.append(status)

    async def removed(self, container: ContainerId) -> None:
        self.gone.append(container)

    async def file(self, digest: str) -> bytes:
        return self.files[digest]


@dataclass
class Yard:
    tested: ACluster
    tenant: TenantId
    installation: str
    heard: Heard = field(default_factory=Heard)

    @property
    def image(self) -> str:
        return images.BUSYBOX

    @property
    def namespace(self) -> str:
        return Cluster.namespace(self.tenant)

    def kubectl(self, *words: str, **more: Any) -> str:
        return self.tested.kubectl("--namespace", self.namespace, *words, **more)

    @asynccontextmanager
    async def engine(self, config: SingleConfig | None = None) -> AsyncIterator[ClusterEngine]:
        """`config`: another way to the cluster."""
        config = config or access.read(self.tested.layout.kubeconfig.read_text())
        async with AsyncExitStack() as stack:
            cluster = await stack.enter_async_context(Cluster(config, self.installation))
            nodes = await (await cluster.watched(Node, labels={})).synced()
            engine = ClusterEngine(
                cluster=cluster,
                images=NodesImages(),
                supplies=self.heard,
                events=self.heard,
                claim=lambda disk: f"disk-{disk}",
                size=_no_limit,
                nodes=nodes,
                addressing=Plugin.CALICO,
            )
            yield await stack.enter_async_context(engine)

    def spec(self, *args: str, **changes: Any) -> ContainerSpec:
        spec = ContainerSpec(
            id=ContainerId(new_id()),
            replica=ReplicaId(new_id()),
            tenant=self.tenant,
            name="shop/web-0",
            hostname="web-0",
            image=BUSYBOX,
            args=args,
            environment={"PATH": "/bin:/usr/bin"},
            working_dir="/",
            user="",
            system_disk=DiskId(new_id()),
            restart=NEVER,
            stop_grace_period=Seconds(0.1),
        )
        return msgspec.structs.replace(spec, **changes)


@contextmanager
def yard(tested: ACluster) -> Iterator[Yard]:
    found = Yard(tested, TenantId(new_id()), f"t{new_id()}")
    tested.kubectl("create", "namespace", found.namespace)
    labels = ("app.kubernetes.io/managed-by=skep", f"skep.dev/installation={found.installation}")
    tested.kubectl("label", "namespace", found.namespace, *labels)
    try:
        yield found
    finally:
        tested.kubectl("delete", "namespace", found.namespace, "--wait=false")


async def _no_limit(disk: DiskId) -> Bytes | None:
    return None
