"""Namespaces of tenants: what they have, whose they are, and when they go."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest
import yaml
from lightkube.models.core_v1 import NamespaceCondition, NamespaceStatus
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Namespace
from lightkube.resources.networking_v1 import NetworkPolicy
from tests.cluster.kubernetes.cluster import Cluster as ACluster
from tests.providers.kubernetes.zone import Zone, open_zone
from tests.providers.network.conftest import network, port

from skep.model.errors import Conflict, Exhausted, NotFound, Unavailable
from skep.model.host import DiskSpec
from skep.model.ids import Bytes, DiskId, TenantId, new_id
from skep.providers.kubernetes import Clusters
from skep.providers.kubernetes.disks.pool import ClaimPool
from skep.providers.kubernetes.manifests import TenantNamespace
from skep.providers.kubernetes.tenants import namespaces
from skep.providers.kubernetes.tenants import tenants as module
from skep.providers.kubernetes.tenants.namespaces import Bounds
from skep.providers.kubernetes.tenants.tenants import Tenants

OF = TenantNamespace("inst", TenantId("acme"))
real = pytest.mark.kubernetes
pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]


@pytest.fixture
async def zone(kubernetes: ACluster) -> AsyncIterator[Zone]:
    async with open_zone(kubernetes) as opened:
        yield opened


def disk(tenant: TenantId) -> DiskSpec:
    return DiskSpec(id=DiskId(new_id()), size=Bytes(1024**2), kind="data", tenant=tenant)


def test_nothing_of_a_tenant_is_as_urgent_as_the_cluster_itself() -> None:
    (quota,) = [
        one["spec"]
        for one in namespaces.limits(OF, Bounds())
        if one["kind"] == "ResourceQuota" and "scopeSelector" in one["spec"]
    ]

    assert quota["hard"] == {"pods": "0"}
    assert quota["scopeSelector"]["matchExpressions"] == [
        {
            "scopeName": "PriorityClass",
            "operator": "In",
            "values": ["system-cluster-critical", "system-node-critical"],
        }
    ]


def test_pods_are_held_to_the_baseline_and_reach_the_name_service_alone() -> None:
    made = namespaces.namespace(OF)
    policies = {one["metadata"]["name"]: one["spec"] for one in namespaces.walls(OF)}

    assert made["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "baseline"
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    (rule,) = policies["names"]["egress"]
    assert {one["port"] for one in rule["ports"]} == {53}


def test_skeps_account_is_bound_to_the_role_for_tenants() -> None:
    made = namespaces.binding(OF)

    assert made["roleRef"]["name"] == "skep-tenant"
    assert made["subjects"] == [{"kind": "ServiceAccount", "name": "skep", "namespace": "skep-system"}]


def test_a_namespace_is_ours_if_it_is_of_this_installation_and_tenant() -> None:
    labels = namespaces.namespace(OF)["metadata"]["labels"]

    assert namespaces.is_ours(labels, OF)
    assert not namespaces.is_ours(labels, TenantNamespace("other", OF.tenant))
    assert not namespaces.is_ours({}, OF)


def test_what_holds_a_namespace_is_told_in_the_clusters_words() -> None:
    remaining = NamespaceCondition(status="True", type="NamespaceContentRemaining", message="pods has 1.")
    fine = NamespaceCondition(status="False", type="NamespaceDeletionDiscoveryFailure", message="All well.")
    meta = ObjectMeta(name="n", finalizers=["example.com/hold"])

    held = Namespace(metadata=meta, status=NamespaceStatus(conditions=[remaining, fine]))

    assert namespaces.held_by(held) == "pods has 1; its finalizer example.com/hold"
    assert namespaces.held_by(Namespace(metadata=ObjectMeta(name="n"))) == ""


@real
async def test_a_namespace_of_somebody_else_is_left_alone(zone: Zone) -> None:
    net = network()
    zone.world.kubectl("create", "namespace", f"skep-{net.tenant}")
    try:
        with pytest.raises(Conflict, match="not of this installation"):
            await zone.fabric.ensure_network(net)
        found = zone.world.get(f"namespace/skep-{net.tenant}")["metadata"].get("labels", {})
    finally:
        zone.world.kubectl("delete", "namespace", f"skep-{net.tenant}", "--wait=false")

    assert not [label for label in found if "skep" in label]
    assert await zone.fabric.networks() == set()


@real
async def test_a_namespace_stays_until_the_last_disk_is_gone(zone: Zone) -> None:
    net = network()
    data = disk(net.tenant)
    await zone.fabric.ensure_network(net)
    await zone.disks.create(data)

    await zone.fabric.delete_network(net.id)
    there = zone.namespaces()
    await zone.disks.delete(data.id)

    assert there == {f"skep-{net.tenant}"}
    assert zone.namespaces() == set()


@real
async def test_what_is_made_while_a_namespace_goes_waits_for_the_next(zone: Zone) -> None:
    net = network()
    await zone.fabric.ensure_network(net)
    await zone.fabric.delete_network(net.id)

    await zone.fabric.ensure_network(net)
    await zone.fabric.plug(nic := port(net, 5))

    assert await zone.fabric.ports() == {nic.id}
    assert zone.namespaces() == {f"skep-{net.tenant}"}


async def _no_porter() -> str:
    raise NotFound


@real
async def test_the_bounds_of_a_namespace_hold_from_its_first_moment(zone: Zone) -> None:
    narrow = Tenants(zone.cluster, Bounds(claims=1))
    tenant = TenantId(new_id())

    async with ClaimPool(zone.cluster, narrow, _no_porter) as disks:
        await disks.create(kept := disk(tenant))
        with pytest.raises(Exhausted, match="persistentvolumeclaims"):
            await disks.create(disk(tenant))

        assert set(await disks.list()) == {kept.id}


@pytest.fixture
def account(kubernetes: ACluster) -> Iterator[dict[str, Any]]:
    """The kubeconfig of the account that the manifests make."""
    kubernetes.kubectl("apply", "--filename=-", stdin=Clusters().rights())
    where = ("--namespace", "skep-system", "get", "secret", "skep-token", "--output=jsonpath={.data.token}")
    while not (token := kubernetes.kubectl(*where)):  # the cluster fills it in a moment later
        time.sleep(0.1)
    document: dict[str, Any] = json.loads(kubernetes.layout.kubeconfig.read_text())
    document["users"][0]["user"] = {"token": base64.b64decode(token).decode()}
    yield document
    kubernetes.kubectl("delete", "--filename=-", "--ignore-not-found", stdin=Clusters().rights())


@real
async def test_the_printed_rights_are_enough_for_networks_and_disks(
    kubernetes: ACluster, account: dict[str, Any]
) -> None:
    async with open_zone(kubernetes, kubeconfig=json.dumps(account)) as zone:
        net = network()
        data = disk(net.tenant)

        await zone.fabric.ensure_network(net)
        await zone.fabric.plug(nic := msgspec.structs.replace(port(net, 5), names=("web-0", "web")))
        await zone.disks.create(data)
        known = (await zone.fabric.ports(), set(await zone.disks.list()), zone.namespaces())
        bound = zone.get(net.tenant, "rolebindings")
        await zone.disks.delete(data.id)
        await zone.fabric.delete_network(net.id)

        assert known == ({nic.id}, {data.id}, {f"skep-{net.tenant}"})
        assert set(bound) == {"skep-tenant"}
        assert zone.namespaces() == set()


def rights_of_before() -> str:
    """As a release printed them that watched no more than its own pods and services everywhere."""
    documents = list(yaml.safe_load_all(Clusters().rights()))
    later = {"networking.k8s.io", "discovery.k8s.io", "policy", "snapshot.storage.k8s.io"}
    for one in documents:
        if (one["kind"], one["metadata"]["name"]) == ("ClusterRole", "skep"):
            one["rules"] = [
                rule
                for rule in one["rules"]
                if not later.intersection(rule["apiGroups"]) and "resourcequotas" not in rule["resources"]
            ]
    return yaml.safe_dump_all(documents)


@real
async def test_a_role_of_an_older_release_is_enough_and_what_it_hid_is_mended_once_there_is_the_new_one(
    kubernetes: ACluster, account: dict[str, Any]
) -> None:
    kubernetes.kubectl("apply", "--filename=-", stdin=rights_of_before())
    kubeconfig, net = json.dumps(account), network()
    async with open_zone(kubernetes, kubeconfig=kubeconfig) as zone:
        await zone.fabric.ensure_network(net)
        await zone.fabric.plug(nic := port(net, 5))
        policy, namespace = f"network-{net.id}", zone.cluster.namespace(net.tenant)
        async with open_zone(kubernetes, zone.cluster.installation, kubeconfig=kubeconfig) as younger:
            watched = await younger.cluster.watched(NetworkPolicy)
            allowed, known = await watched.allowed(), await younger.fabric.ports()
            await zone.kubectl(net.tenant, "delete", "networkpolicy", policy)

            kubernetes.kubectl("apply", "--filename=-", stdin=Clusters().rights())
            async with asyncio.timeout(60):
                await watched.until(lambda: watched.get(policy, namespace) is not None)

        assert (allowed, known) == (False, {nic.id})
        await zone.fabric.delete_network(net.id)


@real
async def test_a_namespace_that_does_not_go_is_named_with_what_holds_it_and_is_made_again_once_it_has(
    zone: Zone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_GOING", 3.0)
    net = network()
    name = f"namespace/skep-{net.tenant}"
    held = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "held", "finalizers": ["test/hold"]},
    }
    await zone.fabric.ensure_network(net)
    await zone.kubectl(net.tenant, "apply", "--filename=-", stdin=json.dumps(held))
    zone.world.kubectl("delete", name, "--wait=false")
    watched = await zone.tenants.watched()
    await watched.until(lambda: is_held(watched.get(f"skep-{net.tenant}")))

    async with zone.tenants.turn(net.tenant):
        with pytest.raises(Unavailable, match=r"is still being deleted: .*test/hold"):
            await zone.tenants.ensure(net.tenant)
    release = '{"metadata": {"finalizers": null}}'
    await zone.kubectl(net.tenant, "patch", "configmap", "held", "--type=merge", "--patch", release)
    monkeypatch.setattr(module, "_GOING", 120.0)
    async with zone.tenants.turn(net.tenant):
        await zone.tenants.ensure(net.tenant)

    assert "deletionTimestamp" not in zone.world.get(name)["metadata"]
    assert zone.namespaces() == {f"skep-{net.tenant}"}


def is_held(found: Namespace | None) -> bool:
    """The cluster says by what."""
    return found is not None and "test/hold" in namespaces.held_by(found)
