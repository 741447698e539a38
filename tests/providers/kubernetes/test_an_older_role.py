"""A cluster whose roles are those of an older release of skep is led, and does without what they lack."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from lightkube.resources.networking_v1 import Ingress
from structlog.testing import capture_logs
from tests.providers.kubernetes.rules import Ruled, ruled
from tests.providers.kubernetes.scripted import document, serve, status

from skep.model.clusters import ClusterAccess, ClusterOffers
from skep.model.errors import Forbidden
from skep.model.host import ContainerStatus, DiskSpec
from skep.model.ids import ClusterId, ContainerId, DiskId, TenantId
from skep.model.needs import Need
from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.client.watching import Change
from skep.providers.kubernetes.disks.keeping import Keeping
from skep.providers.kubernetes.host import ClusterHost, cluster_host
from skep.providers.kubernetes.network.entrances import Entrance
from skep.providers.kubernetes.network.tenancies import Tenancies
from skep.providers.kubernetes.tenants.tenants import Tenants

NETWORKING = "/apis/networking.k8s.io/v1"
INGRESSES, POLICIES = f"{NETWORKING}/ingresses", f"{NETWORKING}/networkpolicies"
SLICES = "/apis/discovery.k8s.io/v1/endpointslices"
ROUTES, GATEWAYS = (f"/apis/gateway.networking.k8s.io/v1/{one}" for one in ("httproutes", "gateways"))
BUDGETS = "/apis/policy/v1/poddisruptionbudgets"
SNAPSHOTS, SNAPSHOT_CLASSES = (
    f"/apis/snapshot.storage.k8s.io/v1/{one}" for one in ("volumesnapshots", "volumesnapshotclasses")
)
POOLS = "/apis/crd.projectcalico.org/v1/ippools"
LATER = {INGRESSES, POLICIES, SLICES, ROUTES, GATEWAYS, BUDGETS, SNAPSHOTS, SNAPSHOT_CLASSES, POOLS}
"""What the first release of skep for clusters did not ask to read everywhere."""

LABELS = {"app.kubernetes.io/managed-by": "skep", "skep.dev/installation": "i", "skep.dev/tenant": "t1"}
NAMESPACE = {"metadata": {"name": "skep-t1", "labels": LABELS, "resourceVersion": "1"}}
CLASSES = {f"{NETWORKING}/ingressclasses": [{"metadata": {"name": "nginx"}, "spec": {}}]}
USUAL = {
    "metadata": {"name": "fast", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
    "provisioner": "p",
}


def left(kind: str, name: str) -> dict[str, Any]:
    labels = LABELS | {"skep.dev/part": "endpoints"}
    meta = {"name": name, "namespace": "skep-t1", "labels": labels, "resourceVersion": "1", "uid": name}
    return {"apiVersion": "networking.k8s.io/v1", "kind": kind, "metadata": meta, "spec": {}}


class Nobody:
    """Has nothing, and is told nothing."""

    async def file(self, digest: str) -> bytes:
        raise AssertionError

    async def certificate(self, digest: str) -> bytes:
        raise AssertionError

    async def disk(self, disk: DiskId) -> DiskSpec:
        raise AssertionError

    async def observed(self, status: ContainerStatus) -> None: ...

    async def removed(self, container: ContainerId) -> None: ...


@asynccontextmanager
async def led(server: Ruled, folder: Path) -> AsyncIterator[ClusterHost]:
    where = ClusterAccess(
        id=ClusterId("i"), kubeconfig=server.kubeconfig(), context=None, registry="127.0.0.1:1/x"
    )
    async with AsyncExitStack() as stack:
        yield await cluster_host(stack, where, folder=folder, supplies=Nobody(), events=Nobody())


async def test_it_is_led_and_each_right_that_is_missing_is_said_once_with_what_to_do(tmp_path: Path) -> None:
    objects = CLASSES | {"/apis/storage.k8s.io/v1/storageclasses": [USUAL]}
    with capture_logs() as logs:
        async with ruled(LATER, objects) as server, led(server, tmp_path) as host:
            for _ in range(2):
                offers = await host.changed(ClusterOffers())

    said = [one for one in logs if one["event"] == "cluster.right-missing"]
    kinds = [one["kind"] for one in said]
    assert offers is not None
    assert {Need.SNAPSHOTS, Need.ADDRESSES} <= offers.lacks
    assert Need.ENDPOINTS not in offers.lacks
    assert {"ingresses", "networkpolicies", "endpointslices", "volumesnapshotclasses"} <= set(kinds)
    assert sorted(kinds) == sorted(set(kinds))
    assert all("skep cluster rights | kubectl apply -f -" in one["error"] for one in said)


async def test_what_may_not_be_watched_everywhere_is_read_where_its_tenants_are(tmp_path: Path) -> None:
    mine = f"{NETWORKING}/namespaces/skep-t1"
    objects = CLASSES | {
        "/api/v1/namespaces": [NAMESPACE],
        f"{mine}/networkpolicies": [left("NetworkPolicy", "wall")],
        f"{mine}/ingresses": [left("Ingress", "endpoints-a1")],
    }
    async with (
        ruled(LATER, objects) as server,
        Cluster(server.config(), "i") as cluster,
        Tenancies(cluster, Tenants(cluster), Nobody().certificate, Entrance("nginx")) as found,
    ):
        there = found.tenancy(TenantId("t1")).there

    assert {("NetworkPolicy", "wall"), ("Ingress", "endpoints-a1")} <= there.keys()


async def test_it_is_heard_of_by_itself_as_soon_as_the_right_is_given() -> None:
    objects = {INGRESSES: [left("Ingress", "web")]}
    heard: list[str] = []

    def heard_of(change: Change[Ingress]) -> None:
        heard.append((change.object.metadata and change.object.metadata.name) or "")

    async with ruled({INGRESSES}, objects) as server, Cluster(server.config(), "i") as cluster:
        watched = await cluster.watched(Ingress)
        watched.subscribe(heard_of)
        before = await watched.allowed()

        server.denied.clear()
        async with asyncio.timeout(30):
            await watched.until(lambda: bool(heard))

        assert (before, await watched.allowed(), heard) == (False, True, ["web"])


async def test_who_wants_a_snapshot_that_may_not_be_seen_reads_which_right_is_missing() -> None:
    objects = {"/apis/storage.k8s.io/v1/storageclasses": [USUAL]}
    async with ruled({SNAPSHOT_CLASSES}, objects) as server, Cluster(server.config(), "i") as cluster:
        with pytest.raises(Forbidden, match=r"volumesnapshotclasses.* skep cluster rights"):
            await Keeping(cluster).class_for("fast")


@pytest.mark.parametrize(
    "said",
    [
        "unable to create new content in namespace a because it is being terminated",
        'admission webhook "policy.example" denied the request: containers cannot run as root',
    ],
)
async def test_what_is_refused_for_another_reason_than_a_right_names_no_rights(said: str) -> None:
    answer = document(status(403, said), 403)
    async with serve(answer) as server, Cluster(server.config(), "i") as cluster:
        with pytest.raises(Forbidden) as refused:
            await cluster.document("/x")

    assert "cluster rights" not in refused.value.message
