"""What becomes of containers on the bad days of a real cluster."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.cluster.kubernetes.cluster import Cluster as ACluster
from tests.providers.kubernetes.yard import ALWAYS, Yard, yard

from skep.model.errors import Unavailable
from skep.model.host import ContainerMount, ContainerSpec, ContainerState
from skep.model.ids import DiskId, new_id
from skep.providers.kubernetes.pods import carrier
from skep.providers.kubernetes.pods.engine import ClusterEngine

pytestmark = [pytest.mark.root, pytest.mark.kubernetes, pytest.mark.timeout(900)]
SLEEP = ("/bin/sleep", "10000")
LOST = "Its node node-2 has not answered since"


@contextmanager
def cordoned(world: ACluster, node: str) -> Iterator[None]:
    world.kubectl("cordon", node)
    try:
        yield
    finally:
        world.kubectl("uncordon", node)


@contextmanager
def without_power(world: ACluster, node: str) -> Iterator[None]:
    machine = world.nodes[node]
    machine.power_off()
    try:
        yield
    finally:
        world.start(machine)


@pytest.fixture
def reachable_everywhere(kubernetes: ACluster) -> Iterator[str]:
    """A volume that pods on every node may mount, as those on a network are."""
    name = f"t{new_id()}"
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "64Mi"},
            "hostPath": {"path": f"/var/tmp/{name}", "type": "DirectoryOrCreate"},
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": name,
        },
    }
    kubernetes.kubectl("apply", "--filename=-", stdin=json.dumps(volume))
    yield name
    kubernetes.kubectl("delete", "pv", name, "--wait=false")


def with_disk(place: Yard, volume: str = "", name: str = "shop/db-0") -> ContainerSpec:
    """`volume`: that one; otherwise one of the default class, which is on one node."""
    disk = DiskId(new_id())
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "64Mi"}}}
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": f"disk-{disk}"},
        "spec": spec | ({"storageClassName": volume, "volumeName": volume} if volume else {}),
    }
    place.kubectl("apply", "--filename=-", stdin=json.dumps(claim))
    mount = ContainerMount(target="/data", disk=disk)
    return place.spec(*SLEEP, restart=ALWAYS, mounts=(mount,), name=name)


def drain(place: Yard, node: str) -> None:
    """Of this test's pods: others use the cluster, too."""
    own = f"--pod-selector=skep.dev/installation={place.installation}"
    place.tested.kubectl("drain", node, own, "--delete-emptydir-data", "--timeout=300s")


def nodes_of(place: Yard) -> dict[str, str]:
    """Where each container runs."""
    pods = json.loads(place.kubectl("get", "pods", "--output=json"))["items"]
    return {
        pod["metadata"]["labels"].get("skep.dev/container", "?"): pod["spec"].get("nodeName", "")
        for pod in pods
    }


async def started(engine: ClusterEngine, *specs: ContainerSpec) -> None:
    await asyncio.gather(*(engine.start(spec) for spec in specs))
    await asyncio.gather(*(engine.wait_ready(spec.id) for spec in specs))


async def until(holds: Any) -> None:
    """Looked at in a thread: kubectl would keep the engine from hearing anything."""
    async with asyncio.timeout(300):
        while not await asyncio.to_thread(holds):
            await asyncio.sleep(0.5)


async def became(engine: ClusterEngine, spec: ContainerSpec, state: ContainerState, error: str) -> None:
    async with asyncio.timeout(300):
        while True:
            found = await engine.inspect(spec.id)
            if found.state is state and (error in found.error if error else not found.error):
                return
            await asyncio.sleep(0.2)


async def test_a_namespace_that_somebody_deleted_is_waited_for_until_it_is_there_again(
    engine: ClusterEngine, place: Yard, kubernetes: ACluster
) -> None:
    with yard(kubernetes) as other:
        kubernetes.kubectl("delete", "namespace", other.namespace)
        spec = other.spec(*SLEEP, restart=ALWAYS)
        starting = asyncio.create_task(engine.start(spec))
        await asyncio.sleep(1.0)
        kubernetes.kubectl("create", "namespace", other.namespace)

        await starting
        await engine.wait_ready(spec.id)
        await engine.remove(spec.id)


async def test_of_a_lost_node_what_has_no_disk_comes_elsewhere_and_what_has_one_waits_for_it(
    engine: ClusterEngine, place: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    web, db = place.spec(*SLEEP, restart=ALWAYS), with_disk(place)
    with cordoned(place.tested, "node-1"):
        await started(engine, web, db)

    with without_power(place.tested, "node-2"):
        await became(engine, web, ContainerState.RUNNING, LOST)
        await became(engine, db, ContainerState.RUNNING, "you say so: kubectl delete node node-2")
        await became(engine, web, ContainerState.RUNNING, "")
        await became(engine, db, ContainerState.RESTARTING, LOST)
        with monkeypatch.context() as impatient:
            impatient.setattr(carrier, "_AFTER_GRACE", 1.0)
            with pytest.raises(Unavailable, match=f"shop/db-0 does not end. {LOST}"):
                await engine.stop(db.id, 0.1)
        pods = json.loads(place.kubectl("get", "pods", "--output=json"))["items"]
        await asyncio.wait_for(engine.remove(web.id), 60)

    assert len([one for one in pods if one["metadata"]["name"].startswith("shop-db")]) == 1
    await engine.start(db)
    await became(engine, db, ContainerState.RUNNING, "")


async def test_a_node_is_drained_replica_by_replica_and_what_has_a_disk_follows_where_its_class_lets_it(
    engine: ClusterEngine, place: Yard, reachable_everywhere: str
) -> None:
    webs = [
        place.spec(*SLEEP, restart=ALWAYS, name=f"shop/web-{one}", hostname=f"web-{one}") for one in (0, 1)
    ]
    stays = with_disk(place)
    follows = with_disk(place, reachable_everywhere, name="shop/cache-0")
    with cordoned(place.tested, "node-1"):
        await started(engine, *webs, stays, follows)
    fewest = len(webs)

    with cordoned(place.tested, "node-2"):
        draining = asyncio.create_task(asyncio.to_thread(drain, place, "node-2"))
        while not draining.done():
            states = [(await engine.inspect(spec.id)).state for spec in webs]
            fewest = min(fewest, states.count(ContainerState.RUNNING))
            await asyncio.sleep(0.02)
        await draining
        for spec in (*webs, follows):
            await became(engine, spec, ContainerState.RUNNING, "")
        await became(engine, stays, ContainerState.RESTARTING, "1 take no new containers (cordoned)")
        why = (await engine.inspect(stays.id)).error
        await until(lambda: "?" not in nodes_of(place))
        places = nodes_of(place)
    await became(engine, stays, ContainerState.RUNNING, "")

    assert fewest >= 1
    assert why.startswith("None of 2 nodes can take it:")
    assert "cannot reach the disk" in why
    assert {places[spec.id] for spec in (*webs, follows)} == {"node-1"}
    assert nodes_of(place)[stays.id] == "node-2"
    budgets = json.loads(place.kubectl("get", "poddisruptionbudgets", "--output=json"))["items"]
    assert {one["metadata"]["name"] for one in budgets} == {"shop.web"}
    await asyncio.gather(*(engine.remove(spec.id) for spec in (*webs, stays, follows)))
    await until(lambda: not json.loads(place.kubectl("get", "pdb", "--output=json"))["items"])
