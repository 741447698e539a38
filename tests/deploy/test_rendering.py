"""kustomize and Helm say the same, and a cluster takes it."""

import json

import pytest
from tests.cluster.kubernetes.cluster import Cluster
from tests.deploy.manifests import alike, chart, overlay

pytestmark = [pytest.mark.root, pytest.mark.kubernetes, pytest.mark.timeout(900)]

INGRESS = {"ingress": {"enabled": True}, "config": {"api_url": "https://skep.example.com"}}


@pytest.mark.parametrize(
    ("name", "values"), [("trial", {"trial": {"enabled": True}}), ("production", INGRESS)]
)
def test_the_chart_says_what_the_overlay_says(
    kubernetes: Cluster, name: str, values: dict[str, object]
) -> None:
    assert alike(chart(values)) == alike(overlay(kubernetes, name))


def test_the_overlay_for_old_clusters_differs_in_its_budgets_alone(kubernetes: Cluster) -> None:
    new, old = (alike(overlay(kubernetes, name)) for name in ("trial", "trial-before-1.21"))

    assert {key: thing["apiVersion"] for key, thing in old.items() if thing != new[key]} == {
        ("PodDisruptionBudget", "skep-api"): "policy/v1beta1",
        ("PodDisruptionBudget", "skep-worker"): "policy/v1beta1",
    }
    assert old.keys() == new.keys()


@pytest.mark.parametrize("how", [(), ("--server-side",)], ids=["kubectl", "helm-4"])
def test_the_cluster_takes_every_object_of_them(kubernetes: Cluster, how: tuple[str, ...]) -> None:
    things = [*overlay(kubernetes, "trial-before-1.21"), *overlay(kubernetes, "production")]
    served = set(kubernetes.kubectl("api-versions").split())
    known = [thing | {"metadata": _here(thing)} for thing in things if thing["apiVersion"] in served]

    sent = json.dumps({"apiVersion": "v1", "kind": "List", "items": known})
    taken = kubernetes.kubectl("apply", *how, "--dry-run=server", "--output=name", "--filename=-", stdin=sent)

    assert len(taken.split()) == len(known)
    assert {thing["apiVersion"] for thing in things} - served <= {"policy/v1"}


def _here(thing: dict[str, dict[str, object]]) -> dict[str, object]:
    """Nothing is made, so any namespace does."""
    return thing["metadata"] | {"namespace": "default"}
