"""What rounds say of what a cluster refuses, and whose way stays open meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
from tests.providers.kubernetes.network.test_network_objects import OF, guarded, plugged
from tests.providers.kubernetes.rules import Ruled, ruled
from tests.providers.kubernetes.tenants.test_walls import left
from tests.providers.kubernetes.zone import no_certificate
from tests.providers.network.conftest import network

from skep.model.errors import InvalidInput
from skep.model.groups import GroupRule
from skep.model.host import NetworkGuards
from skep.model.ids import TenantId
from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.manifests import Manifest
from skep.providers.kubernetes.network.fabric import ClusterFabric
from skep.providers.kubernetes.network.records import NetworkRecord
from skep.providers.kubernetes.network.tenancies import Tenancies
from skep.providers.kubernetes.network.tenancy import Tenancy
from skep.providers.kubernetes.tenants.tenants import Tenants

NET = msgspec.structs.replace(network(), tenant=OF.tenant)
MAIN = f"network-{NET.id}"
LABELS = {"skep.dev/replica": "r5", **OF.labels()}
POD: Manifest = {
    "metadata": {"name": "older", "namespace": OF.name, "labels": LABELS, "resourceVersion": "1"},
    "status": {"phase": "Running", "podIP": "10.64.0.5"},
}
"""It bears no network."""


@asynccontextmanager
async def followed(*pods: Manifest) -> AsyncIterator[tuple[Ruled, Tenancies]]:
    """A cluster that takes what it is told, but for what is `failing`."""
    async with (
        ruled(set(), left() | {"/api/v1/pods": list(pods)}) as server,
        Cluster(server.config(), OF.installation) as cluster,
        Tenancies(cluster, Tenants(cluster), no_certificate) as known,
    ):
        yield server, known


async def brought(known: Tenancies, record: NetworkRecord) -> Tenancy:
    tenancy = known.tenancy(OF.tenant)
    tenancy.record.networks[NET.id] = record
    await known.brought(tenancy)
    return tenancy


def policies(server: Ruled) -> list[str]:
    """Those of networks, in the order in which they were applied."""
    return [name for kind, name in server.applied if kind == "NetworkPolicy" and name.startswith("network-")]


def guards() -> NetworkGuards:
    found = guarded(plugged(NET, 5, 6), GroupRule(protocol="tcp", ports="80")).guards
    assert found is not None
    return found


async def test_who_is_refused_hears_of_it_also_when_others_wait_for_the_next_round() -> None:
    async with followed() as (server, known):
        tenancy = await brought(known, plugged(NET, 5, 6))
        server.failing.add(("NetworkPolicy", MAIN))
        server.pause = 0.05
        told = asyncio.create_task(ClusterFabric(known).set_guards(guards()))
        await asyncio.sleep(0.02)  # its round is under way
        other = asyncio.create_task(known.brought(tenancy))

        with pytest.raises(InvalidInput):
            await told
        await other


async def test_what_was_refused_is_not_in_force_until_it_is_taken() -> None:
    async with followed() as (server, known):
        fabric = ClusterFabric(known)
        await brought(known, plugged(NET, 5, 6))
        server.failing.add(("NetworkPolicy", MAIN))
        with pytest.raises(InvalidInput):
            await fabric.set_guards(guards())
        refused = await fabric.guards()
        server.failing.clear()
        await fabric.set_guards(guards())  # as who told it does then

        assert refused == {}
        assert set(await fabric.guards()) == {NET.id}


async def test_older_pods_keep_their_way_while_the_policy_that_names_them_is_refused() -> None:
    own = [MAIN, f"{MAIN}-within", f"{MAIN}-outside"]
    async with followed(POD) as (server, known):
        tenancy = known.tenancy(OF.tenant)
        tenancy.there |= {("NetworkPolicy", one): "as an older version wrote it" for one in own}
        server.failing |= {("NetworkPolicy", f"{one}-named") for one in own}
        await brought(known, plugged(NET, 5))
        meanwhile = policies(server)
        server.failing.clear()
        await known.brought(tenancy)

    assert meanwhile == []
    assert set(policies(server)[:3]) == {f"{one}-named" for one in own}
    assert set(policies(server)[3:]) == set(own)


async def test_a_group_that_is_refused_leaves_nobody_open() -> None:
    async with followed() as (server, known):
        await brought(known, plugged(NET, 5, 6))
        server.applied.clear()
        server.failing.add(("NetworkPolicy", f"{MAIN}-db"))
        with pytest.raises(InvalidInput):
            await ClusterFabric(known).set_guards(guards())

    assert ("NetworkPolicy", MAIN) in server.applied


async def test_who_leaves_lets_orders_end_that_wait_together_with_news() -> None:
    async with followed() as (server, known):
        tenancy = await brought(known, plugged(NET, 5))
        server.pause = 0.12
        tenancy.record.networks[NET.id] = plugged(NET, 5, 6)
        first = asyncio.create_task(known.brought(tenancy))
        await asyncio.sleep(0.02)
        second = asyncio.create_task(known.brought(tenancy))
        server.news["/api/v1/pods"].put_nowait(("ADDED", POD))
        await asyncio.sleep(0.2)  # it is gathered, and waits for the same round as the second
        assert not first.done()

    await asyncio.gather(first, second)  # neither was cancelled


async def test_those_are_guarded_whose_own_tenant_has_rules_for_them() -> None:
    async with followed() as (_, known):
        fabric = ClusterFabric(known)
        await brought(known, plugged(NET, 5, 6))
        before = fabric.guarded(OF.tenant)
        await fabric.set_guards(guards())

        assert before == set()
        assert fabric.guarded(OF.tenant) == {"r5", "r6"}
        assert fabric.guarded(TenantId("another")) == set()
