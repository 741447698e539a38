"""Which pods stand for replicas."""

from dataclasses import replace

import pytest
from lightkube.models.core_v1 import PodCondition, PodStatus
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Pod

from skep.model.ids import ReplicaId
from skep.providers.kubernetes.network.standing import (
    Standing,
    answering,
    replica,
    serving,
    shared,
    standing,
)


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


@pytest.mark.parametrize(
    ("old", "new", "percent", "behind"),
    [
        (10, 10, 10, (10, 1)),
        (3, 3, 25, (3, 1)),
        (4, 4, 50, (4, 4)),
        (2, 2, 5, (2, 1)),
        (10, 10, 90, (1, 10)),
        (4, 0, 50, (4, 0)),
    ],
)
def test_connections_are_shared_by_whole_replicas(
    old: int, new: int, percent: int, behind: tuple[int, int]
) -> None:
    weights = {ReplicaId(f"old-{one}"): 100 - percent for one in range(old)}
    weights |= {ReplicaId(f"new-{one}"): percent for one in range(new)}

    found = shared(weights | {ReplicaId("off"): 0})

    assert tuple(sum(one.startswith(kind) for one in found) for kind in ("old", "new")) == behind
    assert ReplicaId("off") not in found


def test_where_nobody_has_a_weight_nobody_gets_connections() -> None:
    assert shared({}) == shared({ReplicaId("a"): 0}) == []


def test_shares_are_those_of_replicas_that_answer() -> None:
    weights = {ReplicaId("a"): 90, ReplicaId("b"): 90, ReplicaId("c"): 10, ReplicaId("d"): 10}
    well = Standing("p", "n", "10.64.0.1", True)
    ill = replace(well, ready=False)
    known = {ReplicaId("a"): ill, ReplicaId("c"): ill, ReplicaId("d"): well}

    assert serving(weights, known) == [ReplicaId("d")]
    assert serving(weights, known | {ReplicaId("b"): well}) == [ReplicaId("b"), ReplicaId("d")]
    assert serving(weights, {ReplicaId("a"): ill}) == [ReplicaId("a")]
    assert serving(weights, {}) == []
