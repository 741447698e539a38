"""What skep asks of a cluster, and what becomes of the answers."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from lightkube.models.apps_v1 import DeploymentSpec
from lightkube.models.core_v1 import Container, PodSpec, PodTemplateSpec
from lightkube.models.meta_v1 import LabelSelector, ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Namespace, Pod
from tests.cluster.kubernetes.cluster import Cluster as ACluster
from tests.providers.kubernetes.scripted import Answer, bare, document, pod, serve, status

from skep.model.errors import Conflict, Exhausted, Forbidden, InvalidInput, NotFound, SkepError, Unavailable
from skep.model.ids import TenantId, new_id
from skep.providers.kubernetes.client import access
from skep.providers.kubernetes.client.cluster import Cluster

OTHER = {"reason": "FieldManagerConflict", "message": 'conflict with "kubectl"', "field": ".spec.replicas"}


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (document(status(403, "pods is forbidden"), 403), Forbidden, "pods is forbidden"),
        (document(status(403, "exceeded quota: all"), 403), Exhausted, "exceeded quota"),
        (document(status(401), 401), Forbidden, "does not know who"),
        (document(status(404), 404), NotFound, "get Pod a in n"),
        (document(status(409), 409), Conflict, "no"),
        (document(status(409, details={"causes": [OTHER]}), 409), Conflict, r"\.spec\.replicas \(kubectl\)"),
        (document(status(422, "spec is immutable"), 422), InvalidInput, "immutable"),
        (document(status(500), 500), Unavailable, "not do it now"),
        (document(status(410), 410), Unavailable, "get Pod a in n"),
        (bare(504), Unavailable, "504"),
    ],
)
async def test_what_a_cluster_refuses_is_said_with_its_words(
    answer: Answer, kind: type[SkepError], said: str
) -> None:
    async with serve(answer) as server, Cluster(server.config(), "i", patience=0.0) as cluster:
        with pytest.raises(kind, match=said):
            await cluster.get(Pod, "a", "n")


async def test_who_has_the_fields_is_told_beside_the_words() -> None:
    taken = document(status(409, details={"causes": [OTHER]}), 409)
    async with serve(taken) as server, Cluster(server.config(), "i") as cluster:
        with pytest.raises(Conflict) as caught:
            await cluster.apply(Pod(metadata=ObjectMeta(name="a", namespace="n")))

    assert caught.value.details == {"managers": {".spec.replicas": "kubectl"}}


async def test_a_busy_cluster_is_asked_again_before_anybody_hears_of_it() -> None:
    busy = document(status(429), 429, Retry_After="0")
    answers = (busy, bare(503), document(pod("a")))
    async with serve(*answers) as server, Cluster(server.config(), "i") as cluster:
        found = await cluster.get(Pod, "a", "n")

    assert found.metadata
    assert found.metadata.name == "a"
    assert [what for what, _ in server.asked] == ["GET /api/v1/namespaces/n/pods/a"] * 3


async def test_once_a_cluster_is_led_what_an_order_reads_is_asked_for_as_long_as_the_order() -> None:
    answers = (bare(503), bare(503), document(pod("a")))
    async with serve(*answers) as server, Cluster(server.config(), "i", patience=0.0) as cluster:
        with pytest.raises(Unavailable):
            await cluster.get(Pod, "a", "n")

        cluster.led()

        assert (await cluster.get(Pod, "a", "n")).metadata is not None


async def test_nobody_there_is_unavailable() -> None:
    async with serve() as server:
        config = server.config()
    async with Cluster(config, "i", patience=0.0) as cluster:
        with pytest.raises(Unavailable, match="does not answer"):
            await cluster.get(Pod, "a", "n")


async def test_what_is_gone_may_be_deleted() -> None:
    async with serve(document(status(404), 404)) as server, Cluster(server.config(), "i") as cluster:
        await cluster.delete(Pod, "a", "n", grace=0)

    assert server.asked == [
        ("DELETE /api/v1/namespaces/n/pods/a", {"gracePeriodSeconds": "0", "propagationPolicy": "Background"})
    ]


async def test_a_cluster_is_asked_once_what_it_serves() -> None:
    groups = {"groups": [{"versions": [{"groupVersion": "policy/v1"}]}]}
    async with serve(document(groups)) as server, Cluster(server.config(), "i") as cluster:
        found = [await cluster.serves(name) for name in ("policy/v1", "policy", "policy/v1beta1", "pol")]

    assert found == [True, True, False, False]


# -- a real one ---------------------------------------------------------------------------------------


@pytest.fixture
async def real(kubernetes: ACluster) -> AsyncIterator[Cluster]:
    config = access.read(kubernetes.layout.kubeconfig.read_text())
    async with Cluster(config, f"t{new_id()}") as cluster:
        yield cluster


@pytest.fixture
def namespace(kubernetes: ACluster) -> Iterator[str]:
    name = Cluster.namespace(TenantId(new_id()))
    kubernetes.kubectl("create", "namespace", name)
    yield name
    kubernetes.kubectl("delete", "namespace", name, "--wait=false")


def config_map(cluster: Cluster, namespace: str, **data: str) -> ConfigMap:
    return ConfigMap(
        metadata=ObjectMeta(name="c", namespace=namespace, labels=cluster.labels(app="a")), data=data
    )


@pytest.mark.root
@pytest.mark.kubernetes
@pytest.mark.timeout(900)
async def test_what_is_applied_is_heard_of_and_fields_that_others_have_are_theirs(
    kubernetes: ACluster, real: Cluster, namespace: str
) -> None:
    found = await (await real.watched(ConfigMap)).synced()

    await real.apply(config_map(real, namespace, one="1", two="2"))
    await found.until(lambda: bool(found.labelled(app="a")))
    await real.apply(config_map(real, namespace, one="1"))
    await found.until(lambda: [one.data for one in found.all()] == [{"one": "1"}])
    theirs: dict[str, Any] = {"data": {"one": "theirs"}}
    kubernetes.kubectl("-n", namespace, "patch", "configmap", "c", "--patch", json.dumps(theirs))
    with pytest.raises(Conflict, match=r"\.data\.one \(kubectl"):
        await real.apply(config_map(real, namespace, one="1"))
    (forced,) = await real.apply(config_map(real, namespace, one="1"), force=True)
    await real.delete(ConfigMap, "c", namespace)
    await found.until(lambda: not found.all())

    assert forced.data == {"one": "1"}
    assert found.lists == 1


@pytest.mark.root
@pytest.mark.kubernetes
@pytest.mark.timeout(900)
async def test_kinds_in_groups_and_kinds_without_namespace_are_watched_too(
    real: Cluster, namespace: str
) -> None:
    labels = {"app": "a"}
    template = PodTemplateSpec(
        metadata=ObjectMeta(labels=labels), spec=PodSpec(containers=[Container(name="c", image="i")])
    )
    spec = DeploymentSpec(selector=LabelSelector(matchLabels=labels), template=template, replicas=0)
    where = ObjectMeta(name="d", namespace=namespace, labels=real.labels())
    deployments = await (await real.watched(Deployment)).synced()
    namespaces = await (await real.watched(Namespace)).synced()

    await real.apply(
        Deployment(metadata=where, spec=spec),
        Namespace(metadata=ObjectMeta(name=namespace, labels=real.labels())),
    )
    await deployments.until(lambda: deployments.get("d", namespace) is not None)
    await namespaces.until(lambda: namespaces.get(namespace) is not None)

    assert [item.metadata and item.metadata.name for item in await real.list(Deployment)] == ["d"]


async def test_a_sign_of_life_does_not_wait_behind_orders() -> None:
    async with serve() as busy, Cluster(busy.config(), "i") as cluster:
        orders = [asyncio.create_task(cluster.get(Pod, "a", "n")) for _ in range(40)]
        while not busy.asked:
            await asyncio.sleep(0.01)
        sign = asyncio.create_task(cluster.answers())
        while not any(what == "GET /version" for what, _ in busy.asked):
            await asyncio.sleep(0.01)

        assert len(busy.asked) < 40  # the others wait for their turn
        for task in (*orders, sign):
            task.cancel()
        await asyncio.gather(*orders, sign, return_exceptions=True)
