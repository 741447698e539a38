"""Whether what is there is what was applied."""

import json
from typing import Any

import pytest
from lightkube import codecs

from skep.providers.kubernetes.applied import drifted, is_younger, stamped, stands

RESOURCES = {"limits": {"cpu": "1500m", "memory": "8000000"}}
OURS = {
    "kind": "Deployment",
    "metadata": {"name": "web", "annotations": {"a": "b"}},
    "spec": {"replicas": 2, "containers": [{"image": "a", "resources": RESOURCES}]},
}


def live(manifest: dict[str, Any] = OURS) -> Any:
    """As the cluster has it: with what it adds, and amounts in its own words."""
    found = json.loads(json.dumps(stamped(manifest)))
    del found["kind"]
    found["metadata"] |= {"uid": "u", "resourceVersion": "7"}
    found["spec"]["containers"][0] |= {"imagePullPolicy": "Always"}
    found["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "1.5", "memory": "8M"}}
    return found


def test_what_was_applied_and_is_as_it_was_stands() -> None:
    assert stands(OURS, live())


def test_what_somebody_changed_does_not_stand() -> None:
    scaled, larger = live(), live()
    scaled["spec"]["replicas"] = 3
    larger["spec"]["containers"][0]["resources"]["limits"]["cpu"] = "2"

    assert not stands(OURS, scaled)
    assert list(drifted(OURS["spec"], larger["spec"], "spec")) == ["spec.containers[0].resources.limits.cpu"]


def test_what_was_made_of_something_else_does_not_stand_though_all_that_is_wanted_is_there() -> None:
    before = OURS | {"spec": OURS["spec"] | {"paused": True}}  # type: ignore[operator] # a dictionary

    assert not stands(OURS, live(before))
    assert not stands(OURS, json.loads(json.dumps(OURS)))  # nobody knows what it was made of


OPEN: list[dict[str, Any]] = [
    {"podSelector": {"matchLabels": {"app": "web"}}, "namespaceSelector": {}},
    {"podSelector": {}},
    {},
]


@pytest.mark.parametrize("peer", OPEN)
def test_a_policy_that_one_more_field_or_one_less_opens_does_not_stand(peer: dict[str, Any]) -> None:
    """As the client reads it: an empty selector is everybody, an absent one nobody."""
    shut = policy({"podSelector": {"matchLabels": {"app": "web"}}})
    left: Any = codecs.from_dict(stamped(shut))
    opened: Any = codecs.from_dict(policy(peer) | {"metadata": stamped(shut)["metadata"]})

    assert stands(shut, left.to_dict())
    assert not stands(shut, opened.to_dict())


def policy(peer: dict[str, Any]) -> dict[str, Any]:
    spec = {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": [peer]}]}
    metadata = {"name": "wall", "namespace": "n"}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def test_the_stamp_is_beside_other_annotations() -> None:
    assert stamped(OURS)["metadata"]["annotations"].keys() == {"a", "skep.dev/applied"}
    assert OURS["metadata"] == {"name": "web", "annotations": {"a": "b"}}


@pytest.mark.parametrize(
    ("version", "than", "younger"),
    [("10", "9", True), ("9", "10", False), ("9", "9", False), ("x9", "10", True), ("9", None, True)],
)
def test_versions_are_numbers_that_grow(version: str, than: str | None, younger: bool) -> None:
    assert is_younger(version, than) is younger
