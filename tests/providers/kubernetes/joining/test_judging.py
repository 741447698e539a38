from dataclasses import replace
from typing import Any

import pytest

from skep.providers.kubernetes.joining.addressing import NOTHING, Addressing, Plugin
from skep.providers.kubernetes.joining.facts import DiskClass, Facts
from skep.providers.kubernetes.joining.judging import judge, usable
from skep.providers.kubernetes.joining.snapshots import SnapshotClass

GROUPS = frozenset(
    {
        "policy/v1",
        "crd.projectcalico.org/v1",
        "gateway.networking.k8s.io/v1",
        "metrics.k8s.io/v1beta1",
        "snapshot.storage.k8s.io/v1",
    }
)
WHOLE = Facts(
    version=(1, 33),
    groups=GROUPS,
    nodes=2,
    ready=2,
    classes=(DiskClass("fast", "ebs.csi.aws.com", grows=True, default=True),),
    snapshot_classes=(SnapshotClass("kept", "ebs.csi.aws.com"),),
    gateways=("infra/main",),
    services=frozenset({"kube-dns"}),
)


def verdicts(**changes: Any) -> dict[str, str]:
    found = judge(replace(WHOLE, **changes))
    return {
        one.subject: one.verdict
        for one in found
        if one.verdict != "works" and one.subject != "fixed addresses"
    }


def test_a_cluster_that_has_everything_works_in_everything_but_what_no_cluster_is_used_for() -> None:
    limited = {one.subject for one in judge(WHOLE) if one.verdict != "works"}

    assert verdicts() == {}
    assert limited == {"fixed addresses"}


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"version": (1, 19)}, {"version": "missing", "pod security": "limited"}),
        ({"version": (1, 24)}, {"pod security": "limited"}),
        ({"denied": ("bind clusterroles",)}, {"rights": "missing"}),
        ({"ready": 0}, {"nodes": "missing"}),
        ({"ready": 1}, {"nodes": "limited"}),
        ({"services": frozenset({"metrics"})}, {"names": "missing"}),
        ({"classes": ()}, {"disks": "limited", "snapshots": "limited"}),
        ({"classes": (DiskClass("slow", grows=True),)}, {"disks": "limited", "snapshots": "limited"}),
        ({"classes": (DiskClass("slow", "ebs.csi.aws.com", default=True),)}, {"disks": "limited"}),
        ({"snapshot_classes": ()}, {"snapshots": "limited"}),
        ({"snapshot_classes": (SnapshotClass("other", "nfs.csi.k8s.io"),)}, {"snapshots": "limited"}),
        ({"groups": GROUPS - {"policy/v1"}}, {"disruption budgets": "limited"}),
        ({"groups": GROUPS - {"metrics.k8s.io/v1beta1"}}, {"usage": "limited"}),
        ({"gateways": ()}, {"endpoints": "limited"}),
        ({"gateways": (), "groups": GROUPS - {"gateway.networking.k8s.io/v1"}}, {"endpoints": "limited"}),
        ({"gateways": (), "ingress_classes": ("haproxy",)}, {}),
        (
            {"groups": GROUPS - {"crd.projectcalico.org/v1"}},
            {"isolation": "limited"},
        ),
        (
            {
                "groups": GROUPS - {"crd.projectcalico.org/v1"},
                "daemons": frozenset({"kube-router"}),
            },
            {},
        ),
    ],
)
def test_what_a_cluster_has_not_is_named(changes: dict[str, Any], wanted: dict[str, str]) -> None:
    assert verdicts(**changes) == wanted


@pytest.mark.parametrize(
    ("found", "verdict", "said"),
    [
        (Addressing(Plugin.CALICO, ("10.9.0.0/16",)), "works", "Calico gives them, of 10.9.0.0/16."),
        (Addressing(Plugin.KUBE_OVN, unread="list subnets.kubeovn.io"), "limited", "list subnets.kubeovn.io"),
        (Addressing(Plugin.CALICO), "limited", "Calico has no pool that is for pods"),
        (NOTHING, "limited", "Neither Calico nor Kube-OVN"),
    ],
)
def test_what_gives_pods_fixed_addresses_is_named(found: Addressing, verdict: str, said: str) -> None:
    (one,) = (one for one in judge(replace(WHOLE, addressing=found)) if one.subject == "fixed addresses")

    assert one.verdict == verdict
    assert said in one.message


def test_what_keeps_a_cluster_from_snapshots_is_told_with_what_would_help() -> None:
    def said(**changes: Any) -> str:
        (found,) = [one for one in judge(replace(WHOLE, **changes)) if one.subject == "snapshots"]
        return f"{found.message} {found.remedy}"

    other = (SnapshotClass("other", "nfs.csi.k8s.io"),)

    assert "of class kept." in said()
    assert "Retain" in said(snapshot_classes=(SnapshotClass("kept", "ebs.csi.aws.com", keeps=True),))
    assert "Classes: other (nfs.csi.k8s.io). If ebs.csi.aws.com makes snapshots" in said(
        snapshot_classes=other
    )
    assert "v1 is not served" in said(groups=GROUPS - {"snapshot.storage.k8s.io/v1"}, snapshot_classes=())
    assert "install the snapshot controller" in said(groups=frozenset(), snapshot_classes=())


def test_nodes_that_are_away_or_kept_free_are_named() -> None:
    found = judge(replace(WHOLE, nodes=3, unready=("node-3",), cordoned=("node-1", "node-2")))

    (nodes,) = [one for one in found if one.subject == "nodes"]

    assert nodes.message == (
        "2 of 3 nodes are ready. Not ready: node-3. Take no new pods (cordoned): node-1, node-2."
    )
    assert nodes.remedy


def test_only_what_is_missing_keeps_a_cluster_from_being_a_zone() -> None:
    limited = judge(replace(WHOLE, classes=(), groups=frozenset()))
    missing = judge(replace(WHOLE, denied=("get pods",)))

    assert (usable(limited), usable(missing)) == (True, False)


def test_rights_that_miss_are_told_by_what_they_are_on_and_of_many_the_first() -> None:
    few = judge(replace(WHOLE, denied=("get pods", "list pods", "create secrets", "get pods")))
    many = judge(replace(WHOLE, denied=tuple(f"get kind-{number}" for number in range(8))))

    said = {one.message for one in (*few, *many) if one.subject == "rights"}

    assert said == {
        "Not allowed: get, list pods; create secrets.",
        "Not allowed: get kind-0; get kind-1; get kind-2; get kind-3; get kind-4; and of 3 more kinds.",
    }


def test_whatever_does_not_work_says_what_to_do() -> None:
    nothing = judge(Facts(version=(1, 10), denied=("get pods",)))

    silent = {one.subject for one in nothing if one.verdict != "works" and not one.remedy}

    assert silent == {"disruption budgets"}
