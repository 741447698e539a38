"""A zone of a test's own in the test cluster: an installation that nobody else has."""

import asyncio
import json
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightkube.resources.core_v1 import Namespace
from tests.cluster.kubernetes import images
from tests.cluster.kubernetes.cluster import Cluster as TestCluster

from skep.model.errors import NotFound
from skep.model.ids import ReplicaId, TenantId, new_id
from skep.providers.kubernetes.client import access
from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.disks.pool import ClaimPool
from skep.providers.kubernetes.disks.porter_image import root_of
from skep.providers.kubernetes.disks.porters import PROGRAMS
from skep.providers.kubernetes.manifests import Manifest
from skep.providers.kubernetes.network.edge import ClusterEdge
from skep.providers.kubernetes.network.entrances import Entrance
from skep.providers.kubernetes.network.fabric import ClusterFabric
from skep.providers.kubernetes.network.pod_dns import nameserver, pod_dns
from skep.providers.kubernetes.network.tenancies import Tenancies
from skep.providers.kubernetes.tenants.tenants import Tenants

PORTER = "localhost/porter:1"
INGRESS = Entrance(ingress_class="skep-test")
"""Nothing serves it: what is made for it is looked at."""


@dataclass(frozen=True)
class Zone:
    """`world` is the test cluster; tests ask it with kubectl."""

    world: TestCluster
    cluster: Cluster
    tenants: Tenants
    tenancies: Tenancies
    fabric: ClusterFabric
    edge: ClusterEdge
    disks: ClaimPool

    def namespaces(self) -> set[str]:
        """Those of this zone that nobody deletes."""
        found = self.world.get("namespaces", f"--selector=skep.dev/installation={self.cluster.installation}")
        return {
            one["metadata"]["name"] for one in found["items"] if "deletionTimestamp" not in one["metadata"]
        }

    def get(self, tenant: TenantId, kind: str) -> dict[str, Any]:
        """All of a kind in the tenant's namespace, by name."""
        found = self.world.get(f"--namespace=skep-{tenant}", kind)
        return {one["metadata"]["name"]: one for one in found["items"]}

    async def run(self, tenant: TenantId, replica: ReplicaId, app: str = "shop", port: int = 8080) -> str:
        """A pod that says the replica to whoever asks by HTTP.  Answers its name, once it is ready."""
        dns = pod_dns(app, self.cluster.namespace(tenant), await nameserver(self.cluster))
        pod = serving(self.cluster, tenant, replica, dns, port)
        await asyncio.to_thread(self.world.kubectl, "apply", "--filename=-", stdin=json.dumps(pod))
        return str(pod["metadata"]["name"])

    async def ready(self, tenant: TenantId, *pods: str) -> None:
        names = [f"pod/{name}" for name in pods]
        await self.kubectl(tenant, "wait", "--for=condition=Ready", "--timeout=300s", *names)

    async def kubectl(self, tenant: TenantId, *words: str, stdin: str | None = None) -> str:
        return await asyncio.to_thread(self.world.kubectl, f"--namespace=skep-{tenant}", *words, stdin=stdin)


def counted(cluster: Cluster) -> list[str]:
    """The names of what is applied from now on."""
    names: list[str] = []
    apply = cluster.apply

    async def noted(*objects: Any, force: bool = False) -> list[Any]:
        names.extend(one.metadata.name for one in objects)
        return await apply(*objects, force=force)

    cluster.apply = noted  # type: ignore[method-assign] # it goes on as before
    return names


@asynccontextmanager
async def open_zone(
    world: TestCluster,
    installation: str = "",
    entrance: Entrance | None = INGRESS,
    kubeconfig: str = "",
) -> AsyncIterator[Zone]:
    """With an `installation` of before it is the younger process; only the first takes everything away.

    `kubeconfig`: by default the administrator's.
    """
    config = access.read(kubeconfig or world.kubeconfig.read_text())
    async with Cluster(config, installation or new_id()) as cluster:
        tenants = Tenants(cluster)
        try:
            async with (
                Tenancies(cluster, tenants, no_certificate, entrance) as tenancies,
                ClaimPool(cluster, tenants, lambda: porter_image(world)) as disks,
            ):
                fabric, edge = ClusterFabric(tenancies), ClusterEdge(tenancies)
                yield Zone(world, cluster, tenants, tenancies, fabric, edge, disks)
        finally:
            if not installation:
                for tenant in await tenants.known():
                    await cluster.delete(Namespace, cluster.namespace(tenant))


@contextmanager
def other_service(world: TestCluster, node_port: int) -> Iterator[None]:
    """Somebody else in the cluster has the port."""
    name = f"t{secrets.token_hex(4)}"
    spec = {"type": "NodePort", "ports": [{"port": 80, "nodePort": node_port}]}
    meta = {"name": name, "namespace": name}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}
    world.kubectl("create", "namespace", name)
    try:
        world.kubectl("apply", "--filename=-", stdin=json.dumps(service))
        yield
    finally:
        world.kubectl("delete", "namespace", name, "--wait=false")


async def porter_image(world: TestCluster) -> str:
    """What carries disks, on every node: these zones name no registry."""
    with tempfile.TemporaryDirectory() as folder:
        root = await root_of(PROGRAMS)
        archive = images.write(Path(folder, "porter.tar"), (PORTER, root, ("sh",)))
        await asyncio.to_thread(world.load, archive)
    return PORTER


async def no_certificate(digest: str) -> bytes:
    """For zones without endpoints of HTTPS."""
    raise NotFound


def serving(
    cluster: Cluster, tenant: TenantId, replica: ReplicaId, dns: Manifest, port: int
) -> dict[str, Any]:
    """As the engine makes them, as far as networks are concerned."""
    script = f"echo {replica} > /tmp/index.html; exec httpd -f -p {port} -h /tmp"
    container = {
        "name": "main",
        "image": images.BUSYBOX,
        "command": ["sh", "-c", script],
        "readinessProbe": {"httpGet": {"path": "/", "port": port}, "periodSeconds": 1},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"pod-{replica}",
            "namespace": cluster.namespace(tenant),
            "labels": cluster.labels(tenant=tenant, replica=replica),
        },
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0, **dns},
    }
