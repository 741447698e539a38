"""What skep does in a cluster, as RBAC rules: what is asked for, and what a check looks for.

Everywhere skep reads what it must see to place and explain, and makes namespaces.  What it writes, and every
Secret it reads, is in the namespaces of its tenants only: there it binds itself to a second role.
Format: https://kubernetes.io/docs/reference/access-authn-authz/rbac/
"""

from collections.abc import Iterator
from dataclasses import dataclass

import yaml

ACCOUNT, HOME = "skep", "skep-system"
EVERYWHERE, IN_TENANTS = "skep", "skep-tenant"
"""The two cluster roles."""

_READ = ("get", "list", "watch")
_OWN = (*_READ, "create", "patch", "delete")


@dataclass(frozen=True)
class Rule:
    """Verbs on resources (`pods/log` is a subresource) of an API group; "" is the core's."""

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    names: tuple[str, ...] = ()

    def each(self) -> Iterator[tuple[str, str]]:
        """Every resource with every verb."""
        return ((resource, verb) for resource in self.resources for verb in self.verbs)


SEEN = (
    Rule("", ("nodes", "pods", "services", "endpoints", "events"), _READ),
    Rule("", ("persistentvolumeclaims", "persistentvolumes"), _READ),
    Rule("apps", ("deployments", "statefulsets", "replicasets"), _READ),
    Rule("networking.k8s.io", ("ingressclasses", "ingresses", "networkpolicies"), _READ),
    Rule("discovery.k8s.io", ("endpointslices",), _READ),
    Rule("gateway.networking.k8s.io", ("gateways", "httproutes"), _READ),
    Rule("storage.k8s.io", ("storageclasses",), _READ),
    Rule("policy", ("poddisruptionbudgets",), _READ),
    Rule("snapshot.storage.k8s.io", ("volumesnapshots", "volumesnapshotclasses"), _READ),
    Rule("metrics.k8s.io", ("pods",), ("list",)),
)
OPTIONAL = (
    Rule("", ("resourcequotas", "limitranges"), ("list",)),
    Rule("crd.projectcalico.org", ("ippools",), ("list",)),
    Rule("projectcalico.org", ("ippools",), ("list",)),
    Rule("kubeovn.io", ("subnets",), ("list",)),
)
"""A cluster can be a zone without: limits are applied anew where it is not seen that they stand, and network
plug-ins give pods no addresses."""
MADE = (
    Rule("", ("namespaces",), _OWN),
    Rule("", ("nodes",), ("patch",)),
    Rule("scheduling.k8s.io", ("priorityclasses",), _OWN),
    Rule("rbac.authorization.k8s.io", ("rolebindings",), ("get", "create", "delete")),
)
BIND = Rule("rbac.authorization.k8s.io", ("clusterroles",), ("bind",), (IN_TENANTS,))
OWNED = (
    Rule("", ("pods", "services", "configmaps", "secrets", "persistentvolumeclaims"), _OWN),
    Rule("", ("endpoints", "resourcequotas", "limitranges", "serviceaccounts"), _OWN),
    Rule("", ("pods/log",), ("get",)),
    Rule("", ("pods/exec",), ("get", "create")),
    Rule("", ("pods/eviction",), ("create",)),
    Rule("apps", ("deployments", "statefulsets"), _OWN),
    Rule("networking.k8s.io", ("networkpolicies", "ingresses"), _OWN),
    Rule("discovery.k8s.io", ("endpointslices",), _OWN),
    Rule("gateway.networking.k8s.io", ("httproutes",), _OWN),
    Rule("policy", ("poddisruptionbudgets",), _OWN),
    Rule("snapshot.storage.k8s.io", ("volumesnapshots",), _OWN),
)
"""In the namespaces of tenants."""


def manifest() -> str:
    """YAML for `kubectl apply -f -`: the account, the roles, the binding, and a token that stays."""
    account = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": HOME}
    documents = [
        _object("v1", "Namespace", HOME),
        _object("v1", "ServiceAccount", ACCOUNT, HOME),
        _object(
            "v1",
            "Secret",
            f"{ACCOUNT}-token",
            HOME,
            annotations={"kubernetes.io/service-account.name": ACCOUNT},
            type="kubernetes.io/service-account-token",
        ),
        _role(EVERYWHERE, (*SEEN, *OPTIONAL, *MADE, BIND)),
        _role(IN_TENANTS, OWNED),
        _object(
            "rbac.authorization.k8s.io/v1",
            "ClusterRoleBinding",
            EVERYWHERE,
            roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": EVERYWHERE},
            subjects=[account],
        ),
    ]
    return yaml.safe_dump_all(documents, sort_keys=False, explicit_start=True)


def _role(name: str, rules: tuple[Rule, ...]) -> dict[str, object]:
    written = [
        {"apiGroups": [rule.group], "resources": list(rule.resources), "verbs": list(rule.verbs)}
        | ({"resourceNames": list(rule.names)} if rule.names else {})
        for rule in rules
    ]
    return _object("rbac.authorization.k8s.io/v1", "ClusterRole", name, rules=written)


def _object(
    api: str, kind: str, name: str, namespace: str = "", annotations: object = None, **body: object
) -> dict[str, object]:
    metadata: dict[str, object] = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    if annotations:
        metadata["annotations"] = annotations
    return {"apiVersion": api, "kind": kind, "metadata": metadata} | body
