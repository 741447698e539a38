"""Which pods stand for replicas."""

import pytest
from lightkube.models.core_v1 import PodCondition, PodStatus
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Pod

from skep.model.ids import ReplicaId
from skep.providers.kubernetes.network.standing import Standing, answering, replica, standing


def pod(
    phase: str = "Running", address: str | None = "10.64.0.5", ready: str = "True", going: bool = False
) -> Pod:
    meta = ObjectMeta(name="p", namespace="n", labels={"skep.dev/replica": "r1"})
    conditions = [
        PodCondition(type="ContainersReady", status=ready),
        PodCondition(type="Ready", status="True"),
    ]
    if going:
        meta.deletionTimestamp = "2026-01-01T00:00:00Z"  # type: ignore[assignment] # whatever it is
    return Pod(metadata=meta, status=PodStatus(phase=phase, podIP=address, conditions=conditions))


def test_a_pod_that_runs_stands_for_its_replica() -> None:
    assert standing(pod()) == Standing("p", "n", "10.64.0.5", True)
    assert replica(pod()) == "r1"
    assert replica(Pod(metadata=ObjectMeta(name="p"))) is None


@pytest.mark.parametrize(
    "other", [pod(phase="Pending"), pod(phase="Succeeded"), pod(address=None), pod(going=True)]
)
def test_one_that_does_not_run_or_is_on_its_way_out_does_not(other: Pod) -> None:
    assert standing(other) is None


def test_connections_go_to_those_that_are_well_or_else_to_all() -> None:
    well, ill = Standing("a", "n", "10.64.0.1", True), Standing("b", "n", "10.64.0.2", False)
    both = [ReplicaId("a"), ReplicaId("b"), ReplicaId("gone")]

    assert answering(both, {ReplicaId("a"): well, ReplicaId("b"): ill}) == [well]
    assert answering(both, {ReplicaId("b"): ill}) == [ill]
