"""Walls and limits of namespaces: a new process leaves alone what stands, and mends what does not."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from lightkube.resources.networking_v1 import NetworkPolicy
from structlog.testing import capture_logs
from tests.cluster.kubernetes.cluster import Cluster as ACluster
from tests.providers.kubernetes.rules import Ruled, ruled
from tests.providers.kubernetes.zone import Zone, counted, no_certificate, open_zone
from tests.providers.network.conftest import network

from skep.model.errors import InvalidInput, Unavailable
from skep.model.host import NetworkConfig
from skep.model.ids import TenantId
from skep.providers.kubernetes.applied import stamped
from skep.providers.kubernetes.client import access
from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.manifests import Manifest, TenantNamespace
from skep.providers.kubernetes.network.tenancies import Tenancies
from skep.providers.kubernetes.tenants import namespaces
from skep.providers.kubernetes.tenants.namespaces import Bounds
from skep.providers.kubernetes.tenants.tenants import Tenants

Objects = dict[str, list[dict[str, Any]]]
"""By the path of their list."""
OF = TenantNamespace("inst", TenantId("acme"))
PATHS = {
    "Namespace": "/api/v1/namespaces",
    "ResourceQuota": "/api/v1/resourcequotas",
    "LimitRange": "/api/v1/limitranges",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/networkpolicies",
}
POLICIES = PATHS["NetworkPolicy"]
QUOTAS_OF_IT = f"/api/v1/namespaces/{OF.name}/resourcequotas"
MORE_PODS = '{"spec": {"hard": {"pods": "9k"}}}'
ALL = [
    ("LimitRange", "skep"),
    ("NetworkPolicy", "default-deny"),
    ("NetworkPolicy", "names"),
    ("ResourceQuota", "skep"),
    ("ResourceQuota", "skep-not-critical"),
]
real = pytest.mark.kubernetes
pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]


def left() -> Objects:
    """What an earlier process put into a namespace, as the cluster lists it."""
    objects: Objects = {path: [] for path in PATHS.values()}
    for one in (namespaces.namespace(OF), *namespaces.limits(OF, Bounds()), *namespaces.walls(OF)):
        found = json.loads(json.dumps(stamped(one)))
        found["metadata"] |= {"resourceVersion": "1", "uid": "u"}
        found["status"] = {"hard": found["spec"]["hard"]} if one["kind"] == "ResourceQuota" else {}
        objects[PATHS[one["kind"]]].append(found)
    return objects | {QUOTAS_OF_IT: objects[PATHS["ResourceQuota"]]}


def policy(objects: Objects, name: str) -> dict[str, Any]:
    return next(one for one in objects[POLICIES] if one["metadata"]["name"] == name)


async def ensure(tenants: Tenants) -> None:
    async with tenants.turn(OF.tenant):
        await tenants.ensure(OF.tenant)


async def ensured(server: Ruled, bounds: Bounds | None = None) -> list[tuple[str, str]]:
    """What was applied for it by a process that begins."""
    async with Cluster(server.config(), OF.installation) as cluster:
        await ensure(Tenants(cluster, bounds))
        return sorted(server.applied)


async def test_what_stands_is_left_alone() -> None:
    async with ruled(set(), left()) as server:
        assert await ensured(server) == []


async def test_what_is_missing_and_what_somebody_has_changed_is_applied() -> None:
    objects = left()
    objects[PATHS["LimitRange"]].clear()
    policy(objects, "default-deny")["spec"]["policyTypes"] = ["Ingress"]

    async with ruled(set(), objects) as server:
        assert await ensured(server) == [("LimitRange", "skep"), ("NetworkPolicy", "default-deny")]


@pytest.mark.parametrize(
    "opened",
    [
        {"ingress": [{}], "egress": [{}]},
        {"podSelector": {"matchLabels": {"no": "body"}}},
        {"podSelector": {"matchExpressions": [{"key": "none", "operator": "Exists"}]}},
    ],
)
async def test_what_somebody_has_added_goes_since_it_opens_a_wall(opened: dict[str, Any]) -> None:
    """No apply takes it away: it is not skep's."""
    objects = left()
    policy(objects, "default-deny")["spec"] |= opened

    async with ruled(set(), objects) as server:
        assert await ensured(server) == [("NetworkPolicy", "default-deny"), ("spec", "default-deny")]


async def test_a_port_that_somebody_has_made_a_range_is_one_again() -> None:
    objects = left()
    policy(objects, "names")["spec"]["egress"][0]["ports"][0]["endPort"] = 65535

    async with ruled(set(), objects) as server:
        assert await ensured(server) == [("NetworkPolicy", "names")]


async def test_what_another_manager_has_taken_is_taken_back_and_said() -> None:
    objects = left()
    policy(objects, "names")["spec"]["egress"] = []
    with capture_logs() as logs:
        async with ruled(set(), objects) as server:
            server.managed.add(("NetworkPolicy", "names"))
            applied = await ensured(server)

    assert applied == [("NetworkPolicy", "names")]
    (said,) = [one for one in logs if one["event"] == "cluster.drift"]
    assert said["managers"] == {".spec": "kubectl"}
    assert said["object"] == f"NetworkPolicy names in {OF.name}"


async def test_a_quota_that_nobody_has_counted_does_not_stand() -> None:
    objects = left()
    for quota in objects[PATHS["ResourceQuota"]]:
        quota["status"] = {}

    async with ruled(set(), objects) as server:
        with pytest.raises(Unavailable, match="not counted"):
            await ensured(server)


async def test_other_bounds_than_before_are_applied() -> None:
    async with ruled(set(), left()) as server:
        assert await ensured(server, Bounds(pods=7)) == [("ResourceQuota", "skep")]


async def test_all_of_it_is_applied_where_an_older_role_lets_nobody_see_what_stands() -> None:
    denied = {PATHS[kind] for kind in ("ResourceQuota", "LimitRange", "NetworkPolicy")}
    async with ruled(denied, left()) as server:
        assert await ensured(server) == ALL


async def test_a_wall_that_is_gone_is_put_up_by_whoever_ensures_the_namespace_next() -> None:
    async with ruled(set(), left()) as server, Cluster(server.config(), OF.installation) as cluster:
        tenants = Tenants(cluster)
        await ensure(tenants)
        another = tenants.fallen(OF.tenant, "network-1")
        await ensure(tenants)
        whole = list(server.applied)
        await tell_gone(server, cluster, "names")
        fallen = tenants.fallen(OF.tenant, "names")
        await ensure(tenants)
        await ensure(tenants)

    assert (another, whole, fallen) == (False, [], True)
    assert server.applied == [("NetworkPolicy", "names")]


async def test_a_wall_that_falls_while_its_namespace_is_ensured_is_not_forgotten() -> None:
    def furnish(of: TenantNamespace) -> list[Manifest]:
        """Asked for once it was seen that all of them stand."""
        assert tenants.fallen(of.tenant, "names")
        return []

    async with ruled(set(), left()) as server, Cluster(server.config(), OF.installation) as cluster:
        tenants = Tenants(cluster, furnish=furnish)
        await ensure(tenants)
        before = list(server.applied)
        await tell_gone(server, cluster, "names")
        await ensure(tenants)

    assert (before, server.applied) == ([], [("NetworkPolicy", "names")])


async def test_what_was_refused_once_is_asked_for_again() -> None:
    """Though all of it stood in the namespace that was there before under this name."""
    async with ruled(set(), left()) as server, Cluster(server.config(), OF.installation) as cluster:
        tenants = Tenants(cluster, furnish=lambda of: [of.object("v1", "Secret", "login")])
        await ensure(tenants)
        server.applied.clear()
        server.objects[PATHS["Namespace"]][0]["metadata"]["uid"] = "another"
        server.news[PATHS["Namespace"]].put_nowait(("MODIFIED", server.objects[PATHS["Namespace"]][0]))
        for name in ("default-deny", "names"):
            await tell_gone(server, cluster, name)
        server.failing.add(("NetworkPolicy", "names"))
        with pytest.raises(InvalidInput):
            await ensure(tenants)
        server.failing.clear()
        await ensure(tenants)

    assert {("NetworkPolicy", "names"), ("ResourceQuota", "skep"), ("Secret", "login")} < set(server.applied)


async def test_a_namespace_that_goes_is_not_mended() -> None:
    async with ruled(set(), left()) as server, Cluster(server.config(), OF.installation) as cluster:
        tenants = Tenants(cluster)
        async with tenants.turn(OF.tenant):
            goes = await tenants.release(OF.tenant)
            late = tenants.fallen(OF.tenant, "names")  # with its namespace, which the watch does not know
            await tenants.mend(OF.tenant)

    assert (goes, late, server.applied) == (True, False, [])


async def test_a_wall_of_a_tenant_without_networks_is_put_up_at_once() -> None:
    """Of one that has only disks."""
    disk = {"metadata": {"name": "disk", "namespace": OF.name, "resourceVersion": "1"}}
    objects = left() | {f"/api/v1/namespaces/{OF.name}/persistentvolumeclaims": [disk]}
    with capture_logs() as logs:
        async with ruled(set(), objects) as server, followed(server) as cluster:
            untouched = list(server.applied)
            await tell_gone(server, cluster, "default-deny")
            await until_applied(server, ("NetworkPolicy", "default-deny"))

    assert untouched == []
    assert [one["name"] for one in logs if one["event"] == "kubernetes.deleted"] == ["default-deny"]


async def test_a_wall_that_fell_unseen_is_put_up_as_soon_as_skep_may_see_it() -> None:
    carrier = {"metadata": {"name": "web", "namespace": OF.name, "labels": {"skep.dev/carrier": "web"}}}
    objects = left() | {f"/api/v1/namespaces/{OF.name}/configmaps": [carrier]}
    async with ruled({POLICIES}, objects) as server, followed(server):
        server.objects[POLICIES] = [policy(left(), "names")]
        server.applied.clear()
        server.denied.clear()
        await until_applied(server, ("NetworkPolicy", "default-deny"))


@asynccontextmanager
async def followed(server: Ruled) -> AsyncIterator[Cluster]:
    """By a process that leads the cluster, and finds that all is as it is to be."""
    async with (
        Cluster(server.config(), OF.installation) as cluster,
        Tenancies(cluster, tenants := Tenants(cluster), no_certificate),
    ):
        await ensure(tenants)
        yield cluster


async def tell_gone(server: Ruled, cluster: Cluster, name: str) -> None:
    """The watch says that somebody has deleted it."""
    policies = await cluster.watched(NetworkPolicy)
    server.news[POLICIES].put_nowait(("DELETED", policy(left(), name)))
    async with asyncio.timeout(10):
        await policies.until(lambda: policies.get(name, OF.name) is None)


async def until_applied(server: Ruled, thing: tuple[str, str]) -> None:
    async with asyncio.timeout(10):
        while thing not in server.applied:
            await asyncio.sleep(0.01)


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
        return names


@real
async def test_a_real_cluster_tells_what_stands_and_what_does_not(zone: Zone) -> None:
    await zone.fabric.ensure_network(net := network())
    opened = ("--type=merge", '--patch={"spec": {"ingress": [{}], "egress": [{}]}}')

    standing = await applied_anew(zone, net)
    for wall in ("default-deny", "names"):
        await zone.kubectl(net.tenant, "patch", "networkpolicy", wall, *opened)
    await zone.kubectl(net.tenant, "patch", "resourcequota", "skep", "--type=merge", f"--patch={MORE_PODS}")
    await zone.kubectl(net.tenant, "delete", "limitrange", "skep")
    mended = await applied_anew(zone, net)
    walls, quotas = zone.get(net.tenant, "networkpolicies"), zone.get(net.tenant, "resourcequotas")

    assert standing == []
    assert set(mended) == {"default-deny", "names", "skep"}
    assert walls["default-deny"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert "ingress" not in walls["names"]["spec"]
    assert [rule.keys() for rule in walls["names"]["spec"]["egress"]] == [{"ports"}]
    assert quotas["skep"]["spec"]["hard"]["pods"] == "5k"
    assert await applied_anew(zone, net) == []


@real
async def test_a_wall_that_somebody_deletes_is_put_up_again(zone: Zone) -> None:
    await zone.fabric.ensure_network(net := network())
    before = zone.get(net.tenant, "networkpolicies")["default-deny"]

    await zone.kubectl(net.tenant, "delete", "networkpolicy", "default-deny")
    async with asyncio.timeout(60):
        while (now := zone.get(net.tenant, "networkpolicies").get("default-deny")) is None:
            await asyncio.sleep(0.2)

    assert now["metadata"]["uid"] != before["metadata"]["uid"]
    assert now["spec"] == before["spec"]
