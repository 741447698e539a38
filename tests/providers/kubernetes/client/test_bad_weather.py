"""A real cluster whose API server is busy, slow, away, or has forgotten who skep is."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from lightkube.resources.core_v1 import ConfigMap
from tests.cluster.kubernetes import control_plane
from tests.cluster.kubernetes.cluster import Cluster as ACluster
from tests.providers.kubernetes.weather import Weather, weather
from tests.providers.kubernetes.yard import ALWAYS, Yard

from skep.model.errors import Forbidden, NotFound, Unavailable
from skep.model.host import ContainerSpec, ContainerState
from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.pods import budgets
from skep.providers.kubernetes.pods.engine import ClusterEngine

pytestmark = [pytest.mark.root, pytest.mark.kubernetes, pytest.mark.timeout(900)]
SLEEP = ("/bin/sleep", "10000")


@pytest.fixture
async def sky(kubernetes: ACluster) -> AsyncIterator[Weather]:
    async with weather(kubernetes) as found:
        yield found


@pytest.fixture
async def engine(place: Yard, sky: Weather, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ClusterEngine]:
    monkeypatch.setattr(
        budgets, "_AGAIN", 1.0
    )  # what failed waits half a minute otherwise, and tests with it
    async with place.engine(sky.config()) as engine:
        yield engine
        sky.clear()


def replicas(place: Yard, count: int) -> list[ContainerSpec]:
    names = [f"web-{number}" for number in range(count)]
    return [place.spec(*SLEEP, restart=ALWAYS, name=f"shop/{one}", hostname=one) for one in names]


def left(place: Yard) -> list[str]:
    kinds = "deployments,statefulsets,pods,configmaps,secrets,poddisruptionbudgets"
    found = place.kubectl("get", kinds, "--selector=app.kubernetes.io/managed-by=skep", "--output=json")
    return [one["metadata"]["name"] for one in json.loads(found)["items"]]


async def nothing_is_left(place: Yard) -> None:
    async with asyncio.timeout(120):
        while await asyncio.to_thread(left, place):
            await asyncio.sleep(0.5)


async def test_a_server_that_is_busy_and_slow_and_drops_its_connections_only_takes_longer(
    engine: ClusterEngine, place: Yard, sky: Weather
) -> None:
    specs = [*replicas(place, 3), place.spec("/bin/sh", "-c", "exit 3", name="shop/job-0")]
    sky.busy, sky.slow = 2, 0.2

    starting = asyncio.gather(*(engine.start(spec) for spec in specs))
    await asyncio.sleep(1.0)
    sky.cut()
    await starting
    await asyncio.gather(*(engine.wait_ready(spec.id) for spec in specs[:3]))
    code = await engine.wait_exit(specs[3].id)
    sky.cut()
    await engine.stop(specs[1].id, 0.1)
    states = [(await engine.inspect(spec.id)).state for spec in specs]
    await asyncio.gather(*(engine.remove(spec.id) for spec in specs))

    assert sky.refused > 5
    assert code == 3
    assert [one.value for one in states] == ["running", "exited", "running", "exited"]
    await nothing_is_left(place)


async def test_a_server_that_is_killed_and_comes_back_is_waited_for(
    engine: ClusterEngine, place: Yard, kubernetes: ACluster
) -> None:
    first, second = replicas(place, 2)
    await engine.start(first)
    await engine.wait_ready(first.id)

    kubernetes.control.kill(control_plane.APISERVER)
    try:
        starting = asyncio.create_task(engine.start(second))
        async with asyncio.timeout(60):
            while "The cluster does not answer" not in await said(engine, second):
                await asyncio.sleep(0.1)
        state = (await engine.inspect(first.id)).state
    finally:
        await asyncio.to_thread(kubernetes.start, kubernetes.control)
    await starting
    await engine.wait_ready(second.id)

    assert state is ContainerState.RUNNING
    assert (await engine.inspect(first.id)).restarts == 0


async def said(engine: ClusterEngine, spec: ContainerSpec) -> str:
    with suppress(NotFound):  # it has not been asked for yet
        return (await engine.inspect(spec.id)).error
    return ""


async def test_what_a_server_that_stays_away_was_asked_for_is_refused_and_leaves_nothing(
    place: Yard, sky: Weather
) -> None:
    async with Cluster(sky.config(), place.installation, patience=0.5, of_orders=0.5) as cluster:
        sky.down = True
        with pytest.raises(Unavailable, match="The cluster does not answer"):
            await cluster.list(ConfigMap, place.namespace)
        with pytest.raises(Unavailable, match="The cluster does not answer"):
            await cluster.delete(ConfigMap, "none", place.namespace)
        sky.down = False

        assert await cluster.list(ConfigMap, place.namespace) == []


async def test_who_is_not_known_any_more_says_what_to_do_and_goes_on_once_known_again(
    engine: ClusterEngine, place: Yard, sky: Weather
) -> None:
    first, second = replicas(place, 2)
    await engine.start(first)
    await engine.wait_ready(first.id)

    sky.unknown = True
    sky.cut()
    with pytest.raises(Forbidden, match="skep zone set ZONE --kubeconfig FILE"):
        await engine.start(second)
    place.kubectl("delete", "pods", "--all", "--grace-period=1", "--wait=false")
    sky.unknown = False
    async with asyncio.timeout(120):
        while (await engine.inspect(first.id)).restarts == 0:
            await asyncio.sleep(0.1)
    await engine.start(second)
    await asyncio.gather(*(engine.wait_ready(spec.id) for spec in (first, second)))
    await asyncio.gather(*(engine.remove(spec.id) for spec in (first, second)))

    await nothing_is_left(place)
