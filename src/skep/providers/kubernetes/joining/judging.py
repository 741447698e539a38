"""What a cluster's facts mean for a zone: which apps it can run, and what would have to change for others."""

from collections.abc import Iterable

from skep.model.views.clusters import FindingView, Verdict
from skep.providers.kubernetes.joining.facts import Facts
from skep.providers.kubernetes.joining.gateways import GATEWAYS
from skep.providers.kubernetes.joining.snapshots import API as SNAPSHOTS

OLDEST = (1, 20)
"""The oldest version that is tried."""
POD_SECURITY = (1, 25)
"""The first version whose own admission holds the rules for pods of a namespace."""

_GUARDS = {
    "crd.projectcalico.org": "Calico",
    "cilium.io": "Cilium",
    "kubeovn.io": "Kube-OVN",
    "k8s.ovn.org": "OVN-Kubernetes",
    "crd.antrea.io": "Antrea",
}
"""Plug-ins that enforce NetworkPolicies, by the API group that each brings."""
_GUARDING_DAEMONS = {"kube-router": "kube-router", "weave-net": "Weave Net", "canal": "Canal"}
_SHOWN = 5
"""Kinds of objects of which missing rights are told."""
_NAMERS = ("kube-dns", "coredns", "rke2-coredns-rke2-coredns")


def judge(facts: Facts) -> list[FindingView]:
    """One finding per subject, in the order in which somebody would mend them."""
    return [
        _version(facts),
        _rights(facts),
        _nodes(facts),
        _names(facts),
        _isolation(facts),
        _pod_security(facts),
        _disks(facts),
        _snapshots(facts),
        _fixed_addresses(facts),
        _endpoints(facts),
        _budgets(facts),
        _usage(facts),
    ]


def usable(findings: Iterable[FindingView]) -> bool:
    return all(finding.verdict != "missing" for finding in findings)


def guard(facts: Facts) -> str:
    """The plug-in that enforces NetworkPolicies; "": none that is known."""
    found = [name for group, name in _GUARDS.items() if facts.serves(group)]
    found += [name for daemon, name in _GUARDING_DAEMONS.items() if daemon in facts.daemons]
    return next(iter(found), "")


def _version(facts: Facts) -> FindingView:
    written = ".".join(map(str, facts.version))
    if facts.version < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        return _finding("version", "missing", f"Kubernetes {written} is too old.", f"Upgrade to {oldest}.")
    return _finding("version", "works", f"Kubernetes {written}.")


def _rights(facts: Facts) -> FindingView:
    if facts.denied:
        return _finding(
            "rights",
            "missing",
            f"Not allowed: {_denied(facts.denied)}.",
            "Give them with: skep cluster rights | kubectl apply -f -",
        )
    return _finding("rights", "works", "Everything that skep does is allowed.")


def _denied(rights: Iterable[str]) -> str:
    """By what they are on; of many the first."""
    verbs: dict[str, dict[str, None]] = {}
    for verb, _, resource in (right.partition(" ") for right in rights):
        verbs.setdefault(resource, {})[verb] = None
    said = [f"{', '.join(found)} {resource}" for resource, found in verbs.items()]
    more = [f"and of {len(said) - _SHOWN} more kinds"] if len(said) > _SHOWN else []
    return "; ".join([*said[:_SHOWN], *more])


def _nodes(facts: Facts) -> FindingView:
    said = f"{facts.ready} of {facts.nodes} nodes are ready."
    look = "Look why with: kubectl describe nodes"
    if not facts.ready:
        return _finding("nodes", "missing", said, look)
    others = {"Not ready": facts.unready, "Take no new pods (cordoned)": facts.cordoned}
    said += "".join(f" {what}: {', '.join(names)}." for what, names in others.items() if names)
    if facts.ready < facts.nodes:
        return _finding("nodes", "limited", said, look)
    return _finding("nodes", "works", said)


def _names(facts: Facts) -> FindingView:
    if facts.services.intersection(_NAMERS):
        return _finding("names", "works", "Services find each other by name.")
    return _finding(
        "names", "missing", "No name service was found in kube-system.", "Install CoreDNS in the cluster."
    )


def _isolation(facts: Facts) -> FindingView:
    if name := guard(facts):
        return _finding("isolation", "works", f"{name} enforces network policies.")
    return _finding(
        "isolation",
        "limited",
        "Nothing was found that enforces network policies: tenants can reach each other's pods.",
        "Install a network plug-in that does, or have one tenant in the cluster only.",
    )


def _pod_security(facts: Facts) -> FindingView:
    if facts.version >= POD_SECURITY:
        return _finding("pod security", "works", "Namespaces of tenants are held to the baseline.")
    return _finding(
        "pod security",
        "limited",
        "This version does not hold namespaces to a level by itself; skep asks for no more all the same.",
        "Upgrade to 1.25.",
    )


def _disks(facts: Facts) -> FindingView:
    if not facts.classes:
        return _finding(
            "disks",
            "limited",
            "There is no storage class: services with volumes are refused.",
            "Install a CSI driver with a storage class.",
        )
    usual = facts.usual_class
    words = ", ".join(one.name + ("" if one.grows else " (does not grow)") for one in facts.classes)
    if usual is None:
        return _finding("disks", "limited", f"No class is the default of: {words}.", "Make one the default.")
    verdict: Verdict = "works" if usual.grows else "limited"
    return _finding("disks", verdict, f"Disks are of class {usual.name}; there are: {words}.")


def _snapshots(facts: Facts) -> FindingView:
    if (usual := facts.usual_class) is None:
        return _unkept("There is no usual class of disks, and so no snapshots of them.", "See disks.")
    if (found := facts.snapshots) is not None:
        kept = " It keeps what was deleted (Retain): nobody clears that away." if found.keeps else ""
        return _finding("snapshots", "works", f"Snapshots of disks are of class {found.name}.{kept}")
    if SNAPSHOTS not in facts.groups:
        return _unkept(
            f"{SNAPSHOTS} is not served: disks are not snapshotted, and there is no rollback with data.",
            f"If {usual.driver} makes snapshots, install the snapshot controller with its CRDs, and a "
            "VolumeSnapshotClass; else keep copies by the app's own means, as dumps of its database.",
        )
    others = ", ".join(f"{one.name} ({one.driver})" for one in facts.snapshot_classes) or "none"
    return _unkept(
        f"No VolumeSnapshotClass is for {usual.driver}, which makes disks: they are not snapshotted, and "
        f"there is no rollback with data. Classes: {others}.",
        f"If {usual.driver} makes snapshots, make a VolumeSnapshotClass whose driver it is.",
    )


def _unkept(message: str, remedy: str) -> FindingView:
    return _finding("snapshots", "limited", message, remedy)


def _fixed_addresses(facts: Facts) -> FindingView:
    found = facts.addressing
    refused = "services that ask for an address are refused."
    if found.ranges:
        return _finding(
            "fixed addresses", "works", f"{found.plugin} gives them, of {', '.join(found.ranges)}."
        )
    if found.unread:
        return _finding(
            "fixed addresses",
            "limited",
            f"{found.plugin} may give them, but its pools may not be read ({found.unread}): {refused}",
            "Give that right with: skep cluster rights | kubectl apply -f -",
        )
    if found.plugin is not None:
        return _finding(
            "fixed addresses",
            "limited",
            f"{found.plugin} has no pool that is for pods: {refused}",
            "Make one, or use names: they lead to replicas and services wherever these are.",
        )
    return _finding(
        "fixed addresses",
        "limited",
        f"Neither Calico nor Kube-OVN was found, which give pods the address that they ask for: {refused}",
        "Use names: they lead to replicas and services wherever these are.",
    )


def _endpoints(facts: Facts) -> FindingView:
    if facts.ingress_classes:
        return _finding("endpoints", "works", f"Ingress of class {', '.join(facts.ingress_classes)}.")
    if facts.gateways:
        return _finding("endpoints", "works", f"Gateway {facts.gateways[0]}.")
    if facts.serves(GATEWAYS):
        return _finding(
            "endpoints",
            "limited",
            "No gateway takes routes of all namespaces: services with endpoints are refused.",
            "Make a Gateway with a listener that allows routes from All namespaces.",
        )
    return _finding(
        "endpoints",
        "limited",
        "There is neither an ingress class nor a gateway: services with endpoints are refused.",
        "Install an ingress controller.",
    )


def _budgets(facts: Facts) -> FindingView:
    if facts.groups.intersection(("policy/v1", "policy/v1beta1")):
        return _finding("disruption budgets", "works", "Drains of nodes respect them.")
    return _finding("disruption budgets", "limited", "They are not served: drains stop what they like.")


def _usage(facts: Facts) -> FindingView:
    if facts.serves("metrics.k8s.io"):
        return _finding("usage", "works", "CPU and memory are measured.")
    return _finding(
        "usage",
        "limited",
        "CPU and memory are not measured: there is no autoscaling on them.",
        "Install the metrics server.",
    )


def _finding(subject: str, verdict: Verdict, message: str, remedy: str = "") -> FindingView:
    return FindingView(subject=subject, verdict=verdict, message=message, remedy=remedy)
