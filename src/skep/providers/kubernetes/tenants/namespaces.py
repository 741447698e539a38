"""What a tenant's namespace has before anything runs there: rights, limits, and walls on all sides.  Pure."""

from dataclasses import dataclass

from lightkube.resources.core_v1 import Namespace

from skep.providers.kubernetes.joining.rights import ACCOUNT, HOME, IN_TENANTS
from skep.providers.kubernetes.manifests import Manifest, TenantNamespace

_DNS = [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
QUOTA = "skep"
_DENY, _NAMES = WALLS = ("default-deny", "names")
"""Names of policies."""
_SYSTEM = ("system-cluster-critical", "system-node-critical")
"""Classes of what a cluster needs itself: they put out whatever is in their way."""
_RBAC = "rbac.authorization.k8s.io"


@dataclass(frozen=True)
class Bounds:
    """The most that a tenant has in the cluster, whatever control thinks: a second wall behind its quotas."""

    pods: int = 5_000
    claims: int = 2_000
    services: int = 5_000


def namespace(of: TenantNamespace) -> Manifest:
    """Pods that ask for more than the baseline are refused by clusters of 1.25 and later."""
    levels = {"enforce": "baseline", "warn": "baseline"}
    held = {f"pod-security.kubernetes.io/{mode}": level for mode, level in levels.items()}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": of.name, "labels": of.labels() | held},
    }


def binding(of: TenantNamespace) -> Manifest:
    """skep's account may there what the role for tenants' namespaces says, and nowhere else."""
    return of.object(
        f"{_RBAC}/v1",
        "RoleBinding",
        IN_TENANTS,
        roleRef={"apiGroup": _RBAC, "kind": "ClusterRole", "name": IN_TENANTS},
        subjects=[{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": HOME}],
    )


def limits(of: TenantNamespace, bounds: Bounds) -> list[Manifest]:
    hard = {
        "pods": str(bounds.pods),
        "persistentvolumeclaims": str(bounds.claims),
        "services": str(bounds.services),
        "services.loadbalancers": "0",
    }
    scope = {"scopeName": "PriorityClass", "operator": "In", "values": list(_SYSTEM)}
    critical = {"scopeSelector": {"matchExpressions": [scope]}}
    usual = {"type": "Container", "defaultRequest": {"cpu": "10m", "memory": "32Mi"}}
    return [
        of.object("v1", "ResourceQuota", QUOTA, spec={"hard": hard}),
        of.object("v1", "ResourceQuota", "skep-not-critical", spec={"hard": {"pods": "0"}} | critical),
        of.object("v1", "LimitRange", "skep", spec={"limits": [usual]}),
    ]


def walls(of: TenantNamespace) -> list[Manifest]:
    """Policies by which nothing is reached but the name service."""
    return [
        _policy(of, _DENY, {"policyTypes": ["Ingress", "Egress"]}),
        _policy(of, _NAMES, {"policyTypes": ["Egress"], "egress": [{"ports": _DNS}]}),
    ]


def held_by(found: Namespace) -> str:
    """What keeps one that is being deleted, in the cluster's words; "" if it says nothing."""
    conditions = (found.status and found.status.conditions) or ()
    said = [(one.message or one.type).rstrip(".") for one in conditions if one.status == "True"]
    finalizers = (found.metadata and found.metadata.finalizers) or ()
    return "; ".join([*said, *(f"its finalizer {one}" for one in finalizers)])


def is_ours(labels: dict[str, str], of: TenantNamespace) -> bool:
    """Whether a namespace with these labels is of this installation and tenant."""
    return of.labels().items() <= labels.items()


def _policy(of: TenantNamespace, name: str, spec: Manifest) -> Manifest:
    """Of all pods."""
    return of.object("networking.k8s.io/v1", "NetworkPolicy", name, spec={"podSelector": {}} | spec)
