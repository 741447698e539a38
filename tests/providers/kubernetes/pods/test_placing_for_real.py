"""A real scheduler puts pods where they are meant to be, and who comes first is known to it."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from tests.cluster.kubernetes.cluster import Cluster as ACluster
from tests.providers.kubernetes.yard import ALWAYS, Yard

from skep.model.host import ContainerSpec, NodePlacement
from skep.model.ids import new_id
from skep.model.placement import Constraint, Priority
from skep.providers.kubernetes.pods.engine import ClusterEngine

pytestmark = [pytest.mark.root, pytest.mark.kubernetes, pytest.mark.timeout(600)]


def replica(place: Yard, name: str, *, seconds: int = 1000, **changes: Any) -> ContainerSpec:
    """Another number of `seconds` is another revision."""
    return place.spec("/bin/sleep", str(seconds), restart=ALWAYS, name=f"shop/{name}", **changes)


async def ready(engine: ClusterEngine, *specs: ContainerSpec) -> None:
    await asyncio.gather(*(engine.start(spec) for spec in specs))
    await asyncio.gather(*(engine.wait_ready(spec.id) for spec in specs))


def seen(place: Yard, service: str) -> list[dict[str, Any]]:
    found = place.kubectl("get", "pods", f"--selector=skep.dev/service={service}", "--output=json")
    items: list[dict[str, Any]] = json.loads(found)["items"]
    return [one["spec"] for one in items]


def nodes(place: Yard, service: str) -> Counter[str]:
    return Counter(one.get("nodeName", "") for one in seen(place, service))


async def until(holds: Any) -> None:
    async with asyncio.timeout(120):
        while not await asyncio.to_thread(holds):
            await asyncio.sleep(0.2)


@pytest.fixture
def label(place: Yard) -> Iterator[str]:
    """The name of a label that `node-2` alone has."""
    name = f"t{new_id()}"
    place.kubectl("label", "node", "node-2", f"{name}=ssd")
    yield name
    place.kubectl("label", "node", "node-2", f"{name}-")


async def test_pods_are_where_they_are_meant_to_be(engine: ClusterEngine, place: Yard, label: str) -> None:
    def meant(**more: Any) -> NodePlacement:
        return NodePlacement(constraints=(Constraint(f"node.labels.{label}", "==", "ssd"),), **more)

    await ready(engine, replica(place, "web-0"))
    await ready(engine, replica(place, "web-1", seconds=2000))
    packed = NodePlacement(pack=True)
    await ready(engine, replica(place, "job-0", placement=packed))
    together = [replica(place, f"job-{number}", placement=packed) for number in (1, 2)]
    alone = [replica(place, f"db-{number}", placement=meant(alone=True)) for number in (0, 1)]
    await ready(engine, alone[0], *together)
    starting = asyncio.create_task(engine.start(alone[1]))
    waits = await _explained(engine, alone[1])
    starting.cancel()

    assert nodes(place, "web") == {"node-1": 1, "node-2": 1}
    assert list(nodes(place, "job").values()) == [3]
    assert nodes(place, "db") == {"node-2": 1, "": 1}
    assert "1 are not what its placement asks for" in waits
    assert "1 run one of its replicas already" in waits


async def _explained(engine: ClusterEngine, spec: ContainerSpec) -> str:
    async with asyncio.timeout(60):
        while not (said := await _said(engine, spec)):
            await asyncio.sleep(0.2)
    return said


async def _said(engine: ClusterEngine, spec: ContainerSpec) -> str:
    known = {one.id: one for one in await engine.list()}
    return known[spec.id].error if spec.id in known else ""


async def test_priorities_are_classes_that_are_made_and_kept(place: Yard, kubernetes: ACluster) -> None:
    low = f"skep-{place.installation}-low"
    try:
        async with place.engine() as engine:
            await ready(engine, replica(place, "batch-0", priority=Priority.LOW), replica(place, "web-0"))
            urgent = replica(place, "pay-0", priority=Priority.HIGH)
            await ready(engine, urgent)
            kubernetes.kubectl("delete", "priorityclass", low)
            await until(lambda: low in kubernetes.kubectl("get", "priorityclass", "--output=name"))

        found = {name: seen(place, name)[0] for name in ("batch", "web", "pay")}
        assert [found[name]["priority"] for name in ("batch", "web", "pay")] == [-10, 0, 1000]
        assert found["batch"]["priorityClassName"] == low
    finally:
        kubernetes.kubectl(
            "delete", "priorityclass", f"--selector=skep.dev/installation={place.installation}"
        )
