"""What the manifests promise: confined pods, probes, no versions that are gone; nothing secret."""

from collections.abc import Mapping
from typing import Any

import pytest
from tests.deploy.manifests import DEPLOY, Object, pods, written

from skep.configuration import Configuration

OLD = {("policy/v1beta1", "PodDisruptionBudget")}
"""For Kubernetes before 1.21, in a folder of its own."""
SERVED = {
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("batch/v1", "Job"),
    ("networking.k8s.io/v1", "Ingress"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("policy/v1", "PodDisruptionBudget"),
    ("v1", "Service"),
    ("v1", "ServiceAccount"),
}
"""Stable, and in no list of what is taken away: kubernetes.io/docs/reference/using-api/deprecation-guide."""
PODS = dict(pods(written()))
CONTROL = ["skep-api", "skep-migrate", "skep-worker"]


def test_nothing_is_asked_for_in_a_version_that_is_gone() -> None:
    kinds = {(thing["apiVersion"], thing["kind"]) for thing in written()}

    assert kinds == SERVED | OLD


@pytest.mark.parametrize("name", PODS)
def test_no_pod_has_a_right_that_it_does_not_need(name: str) -> None:
    pod = PODS[name]

    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert set(container["resources"]) == {"requests", "limits"}
    assert not any("hostPath" in volume for volume in pod["volumes"])
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()


@pytest.mark.parametrize("name", PODS)
def test_every_pod_has_an_account_without_a_token(name: str) -> None:
    accounts = {a["metadata"]["name"]: a for a in written() if a["kind"] == "ServiceAccount"}

    assert accounts[PODS[name]["serviceAccountName"]]["automountServiceAccountToken"] is False


@pytest.mark.parametrize("name", ["skep-api", "skep-worker"])
def test_who_is_asked_for_life_and_readiness_is_asked_for_both(name: str) -> None:
    (container,) = PODS[name]["containers"]

    asked = {kind: container[kind]["httpGet"]["path"] for kind in ("livenessProbe", "readinessProbe")}

    assert asked == {"livenessProbe": "/healthz", "readinessProbe": "/readyz"}


@pytest.mark.parametrize("name", ["skep-api", "skep-worker"])
def test_replicas_are_spread_and_not_all_taken_at_once(name: str) -> None:
    spread = {one["topologyKey"] for one in PODS[name]["topologySpreadConstraints"]}
    budgets = [t for t in written() if t["kind"] == "PodDisruptionBudget" and t["metadata"]["name"] == name]

    assert spread == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
    assert {budget["apiVersion"] for budget in budgets} == {"policy/v1", "policy/v1beta1"}


@pytest.mark.parametrize("name", CONTROL)
def test_settings_are_ones_that_there_are_and_what_is_secret_comes_from_the_secret(name: str) -> None:
    (container,) = PODS[name]["containers"]
    known = {f"SKEP_{key.upper()}" for key in Configuration.__struct_fields__}

    given = {one["name"]: one for one in container["env"] if one["name"].startswith("SKEP_")}

    assert given.keys() <= known
    assert {"SKEP_DATABASE", "SKEP_BUS"} <= given.keys()
    assert all("secretKeyRef" in given[key]["valueFrom"] for key in ("SKEP_DATABASE", "SKEP_BUS"))
    assert not [thing for thing in written() if thing["kind"] == "Secret"]


def test_every_port_names_its_protocol() -> None:
    # Older clusters know no default when they merge, as Helm 4 asks for (server-side apply).
    served = [port for thing in written() if thing["kind"] == "Service" for port in thing["spec"]["ports"]]
    opened = [port for pod in PODS.values() for one in pod["containers"] for port in one.get("ports", [])]

    assert {port.get("protocol") for port in (*served, *opened)} == {"TCP"}


def test_only_who_needs_a_key_is_given_it() -> None:
    given = {name: sorted(_keys(PODS[name])) for name in CONTROL}

    assert given == {
        "skep-api": ["admin.token", "installation.key"],
        "skep-migrate": ["admin.token"],
        "skep-worker": ["installation.key"],
    }


def test_both_budgets_say_the_same() -> None:
    folders = (DEPLOY / "kubernetes" / "budgets" / version / "budgets.yaml" for version in ("v1", "v1beta1"))

    new, old = (folder.read_text() for folder in folders)

    assert new.replace("policy/v1\n", "policy/v1beta1\n") == old


def _keys(pod: Mapping[str, Any]) -> list[str]:
    secrets: list[Object] = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
    return [item["key"] for secret in secrets for item in secret["items"]]
