"""Walls and limits of namespaces: a new process leaves alone what stands, and mends what does not."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from lightkube.resources.networking_v1 import NetworkPolicy
from tests.cluster.kubernetes.cluster import Cluster as ACluster
from tests.providers.kubernetes.rules import Ruled, ruled
from tests.providers.kubernetes.zone import Zone, counted, open_zone
from tests.providers.network.conftest import network

from skep.model.host import NetworkConfig
from skep.model.ids import TenantId
from skep.providers.kubernetes.applied import stamped
from skep.providers.kubernetes.client import access
from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.manifests import Manifest, TenantNamespace
from skep.providers.kubernetes.tenants import namespaces
from skep.providers.kubernetes.tenants.namespaces import Bounds
from skep.providers.kubernetes.tenants.tenants import Tenants

OF = TenantNamespace("inst", TenantId("acme"))
PATHS = {
    "Namespace": "/api/v1/namespaces",
    "ResourceQuota": "/api/v1/resourcequotas",
    "LimitRange": "/api/v1/limitranges",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/networkpolicies",
}
ALL = {
    ("ResourceQuota", "skep"),
    ("ResourceQuota", "skep-not-critical"),
    ("LimitRange", "skep"),
    ("NetworkPolicy", "default-deny"),
    ("NetworkPolicy", "names"),
}
real = pytest.mark.kubernetes
pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]


def as_left(*manifests: Manifest) -> dict[str, list[dict[str, Any]]]:
    """A namespace with these in it, as the cluster lists them; a quota, which is asked for, is counted."""
    objects: dict[str, list[dict[str, Any]]] = {path: [] for path in PATHS.values()}
    for one in (namespaces.namespace(OF), *manifests):
        found = stamped(one) | {"status": {}}
        found["metadata"] |= {"resourceVersion": "1", "uid": "u"}
        objects[PATHS[one["kind"]]].append(found)
    counted = {"metadata": {"name": "skep"}, "status": {"hard": {"pods": "5k"}}}
    return objects | {f"/api/v1/namespaces/{OF.name}/resourcequotas": [counted]}


async def ensured(server: Ruled, bounds: Bounds | None = None) -> set[tuple[str, str]]:
    """What was applied for it by a process that begins."""
    async with Cluster(server.config(), OF.installation) as cluster:
        tenants = Tenants(cluster, bounds)
        tenants._everywhere = True  # no binding is needed
        async with tenants.turn(OF.tenant):
            await tenants.ensure(OF.tenant)
        return set(server.applied)


async def test_what_stands_is_left_alone() -> None:
    async with ruled(set(), as_left(*namespaces.fences(OF, Bounds()))) as server:
        assert await ensured(server) == set()


async def test_what_is_missing_and_what_somebody_has_changed_is_applied() -> None:
    quota, critical, ranges, deny, names = namespaces.fences(OF, Bounds())
    left = as_left(quota, critical, deny, names)
    (found, _) = left[PATHS["NetworkPolicy"]]
    found["spec"]["policyTypes"] = ["Ingress"]

    async with ruled(set(), left) as server:
        assert await ensured(server) == {("LimitRange", "skep"), ("NetworkPolicy", "default-deny")}
    assert ranges["kind"] == "LimitRange"


async def test_other_bounds_than_before_are_applied() -> None:
    async with ruled(set(), as_left(*namespaces.fences(OF, Bounds()))) as server:
        assert await ensured(server, Bounds(pods=7)) == {("ResourceQuota", "skep")}


async def test_all_of_it_is_applied_where_an_older_role_lets_nobody_see_what_stands() -> None:
    denied = {PATHS[kind] for kind in ("ResourceQuota", "LimitRange", "NetworkPolicy")}
    async with ruled(denied, as_left(*namespaces.fences(OF, Bounds()))) as server:
        assert await ensured(server) == ALL


async def test_a_wall_that_is_lost_is_put_up_by_whoever_ensures_the_namespace_next() -> None:
    async with (
        ruled(set(), as_left(*namespaces.fences(OF, Bounds()))) as server,
        Cluster(server.config(), OF.installation) as cluster,
    ):
        tenants = Tenants(cluster)
        tenants._everywhere = True
        before_anybody_knew = tenants.lost(OF.tenant, "names")
        async with tenants.turn(OF.tenant):
            await tenants.ensure(OF.tenant)
            another = tenants.lost(OF.tenant, "network-1")
            await tenants.ensure(OF.tenant)
            whole = list(server.applied)
            lost = tenants.lost(OF.tenant, "names"), tenants.lost(OF.tenant, "names")
            await tenants.ensure(OF.tenant)

    assert (before_anybody_knew, another, whole) == (False, False, [])
    assert lost == (True, False)
    assert ("ResourceQuota", "skep") in server.applied


async def test_a_wall_that_is_lost_while_a_namespace_is_ensured_is_not_forgotten() -> None:
    lost: list[bool] = []

    def furnish(of: TenantNamespace) -> list[Manifest]:
        """Once it was seen that all of them stand."""
        lost.append(tenants.lost(of.tenant, "names"))
        return []

    async with (
        ruled(set(), as_left(*namespaces.fences(OF, Bounds()))) as server,
        Cluster(server.config(), OF.installation) as cluster,
    ):
        tenants = Tenants(cluster, furnish=furnish)
        tenants._everywhere = True
        async with tenants.turn(OF.tenant):
            await tenants.ensure(OF.tenant)
            before = list(server.applied)
            await tenants.ensure(OF.tenant)

    assert (lost[0], before) == (True, [])
    assert ("ResourceQuota", "skep") in server.applied


@pytest.fixture
async def zone(kubernetes: ACluster) -> AsyncIterator[Zone]:
    async with open_zone(kubernetes) as opened:
        yield opened


async def applied_anew(zone: Zone, net: NetworkConfig) -> list[str]:
    """By a process that begins."""
    config = access.read(zone.world.kubeconfig.read_text())
    async with Cluster(config, zone.cluster.installation) as cluster:
        tenants, names = Tenants(cluster), counted(cluster)
        async with tenants.turn(net.tenant):
            await tenants.ensure(net.tenant)
        return sorted(names)


@real
async def test_a_real_cluster_tells_what_stands_and_what_does_not(zone: Zone) -> None:
    await zone.fabric.ensure_network(net := network())
    change = ("patch", "networkpolicy", "names", "--type=merge", '--patch={"spec": {"egress": []}}')

    standing = await applied_anew(zone, net)
    await zone.kubectl(net.tenant, *change)
    await zone.kubectl(net.tenant, "delete", "limitrange", "skep")
    mended = await applied_anew(zone, net)

    assert standing == []
    assert mended == ["names", "skep"]
    assert await applied_anew(zone, net) == []


@real
async def test_a_wall_that_somebody_deletes_is_put_up_again(zone: Zone) -> None:
    await zone.fabric.ensure_network(net := network())
    policies, namespace = await zone.cluster.watched(NetworkPolicy), zone.cluster.namespace(net.tenant)
    there = policies.get("default-deny", namespace)

    await zone.kubectl(net.tenant, "delete", "networkpolicy", "default-deny")
    async with asyncio.timeout(60):
        await policies.until(lambda: policies.get("default-deny", namespace) not in (None, there))

    walls = zone.get(net.tenant, "networkpolicies")
    assert walls["default-deny"]["spec"]["policyTypes"] == ["Ingress", "Egress"]
