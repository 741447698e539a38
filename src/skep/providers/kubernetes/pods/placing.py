"""Which nodes a pod may run on, and how it lies to the others of its service.  Pure.

Others are all pods of the service, whatever their revision: so those of a new one are spread beside the old.
Fields: https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/ (1.19 and later)
and https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/.
"""

from collections.abc import Collection, Iterable
from typing import Any

from skep.model.host import ContainerSpec, NodePlacement
from skep.model.placement import LABEL, Constraint
from skep.providers.kubernetes.manifests import DOMAIN
from skep.providers.kubernetes.pods.naming import Position, label_value

Manifest = dict[str, Any]
HOSTNAME = "kubernetes.io/hostname"
_LABELS = {
    "node.hostname": HOSTNAME,
    "node.id": HOSTNAME,
    "node.zone": "topology.kubernetes.io/zone",
    "node.region": "topology.kubernetes.io/region",
    "node.platform.os": "kubernetes.io/os",
    "node.platform.arch": "kubernetes.io/arch",
}
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
"""As Go, and so Kubernetes, calls them."""
_USUAL = ("node.zone",)
_NEVER_SKEWED = 1_000_000
"""So that the cluster's own usual spread is not added to pods that are to be together."""


def placed(spec: ContainerSpec, node_labels: Collection[str]) -> Manifest:
    """Fields of a pod's specification.  `node_labels`: those that any node has, by name.

    Replicas are spread over a label only if there is one: nodes without a label that pods are spread over are
    not told apart at all.
    """
    asked, others = spec.placement or NodePlacement(), _others(spec)
    spread = [_spread(key, others) for key in _keys(asked, node_labels)]
    together = {"topologySpreadConstraints": [_spread(HOSTNAME, others, _NEVER_SKEWED)]}
    found: Manifest = together if asked.pack else {"topologySpreadConstraints": spread}
    affinity = _meant(asked.constraints) | _apart(asked, others) | _near(asked, others)
    return found | ({"affinity": affinity} if affinity else {})


def _others(spec: ContainerSpec) -> Manifest:
    """Pods of the same service, itself among them; they are in its namespace."""
    where = Position.of(spec.name)
    own = {"app": where.app, "service": where.service}
    return {"matchLabels": {f"{DOMAIN}/{name}": label_value(value) for name, value in own.items()}}


def _keys(asked: NodePlacement, node_labels: Collection[str]) -> Iterable[str]:
    """What they are spread over, nodes last."""
    wanted = [_label(key) for key in asked.spread or _USUAL]
    return dict.fromkeys([*(key for key in wanted if key in node_labels), HOSTNAME])


def _label(key: str) -> str:
    return _LABELS.get(key) or key.removeprefix(LABEL)


def _spread(key: str, others: Manifest, skew: int = 1) -> Manifest:
    """Rather evenly; a pod that can go nowhere else goes where too many are."""
    return {
        "maxSkew": skew,
        "topologyKey": key,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": others,
    }


def _meant(constraints: Iterable[Constraint]) -> Manifest:
    """All of them, in one term: of several terms one would do."""
    term: Manifest = {}
    for one in constraints:
        field = "matchFields" if one.key == "node.id" else "matchExpressions"
        term.setdefault(field, []).append(_requirement(one))
    if not term:
        return {}
    wanted = {"nodeSelectorTerms": [term]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": wanted}}


def _requirement(one: Constraint) -> Manifest:
    """A node without the label is in none of its values, so `!=` allows it."""
    value = _ARCHITECTURES.get(one.value, one.value) if one.key == "node.platform.arch" else one.value
    return {
        "key": "metadata.name" if one.key == "node.id" else _label(one.key),
        "operator": "In" if one.operator == "==" else "NotIn",
        "values": [value],
    }


def _apart(asked: NodePlacement, others: Manifest) -> Manifest:
    if not asked.alone:
        return {}
    term = {"labelSelector": others, "topologyKey": HOSTNAME}
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def _near(asked: NodePlacement, others: Manifest) -> Manifest:
    if not asked.pack:
        return {}
    term = {"labelSelector": others, "topologyKey": HOSTNAME}
    wish = {"weight": 100, "podAffinityTerm": term}
    return {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [wish]}}
