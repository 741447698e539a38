"""A tenant's namespace, and the manifests that are put into it.  Pure."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from skep.model.ids import NetworkId, TenantId

Manifest = dict[str, Any]
"""As Kubernetes writes it in YAML."""

MANAGED_BY = {"app.kubernetes.io/managed-by": "skep"}
DOMAIN = "skep.dev"
_NETWORK, _IN, _OUT = f"{DOMAIN}/network-", "in", "out"
_LABEL = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class TenantNamespace:
    """Everything of skep's in there bears the labels of the installation and of the tenant."""

    installation: str
    tenant: TenantId

    @property
    def name(self) -> str:
        return f"skep-{self.tenant}"

    def labels(self, **more: str) -> dict[str, str]:
        """Those of everything, and `skep.dev/app` for `app=…`."""
        own = {"installation": self.installation, "tenant": self.tenant, **more}
        return MANAGED_BY | {f"{DOMAIN}/{key}": value for key, value in own.items()}

    def object(
        self, api: str, kind: str, name: str, labels: Mapping[str, str] | None = None, **body: object
    ) -> Manifest:
        metadata = {"name": name, "namespace": self.name, "labels": self.labels(**(labels or {}))}
        return {"apiVersion": api, "kind": kind, "metadata": metadata} | body


def is_label(name: str) -> bool:
    """Whether every version of Kubernetes takes it for the name of a service or of a host."""
    return _LABEL.fullmatch(name) is not None


def app_service(app: str) -> str:
    """The service that the names of an app live under: called like the app, where Kubernetes has such names.

    Pods of the app search `app_service(app).NAMESPACE.svc` first, then `NAMESPACE.svc`: so `web` is of their
    own app, and `web.shop` of another.
    """
    if is_label(app):
        return app
    mark = hashlib.sha256(app.encode()).hexdigest()[:6]
    plain = re.sub(r"[^a-z0-9-]", "-", app)[:50].strip("-")
    return f"app-{plain}-{mark}"


def network_marks(networks: Mapping[NetworkId, bool]) -> dict[str, str]:
    """The labels of pods that are on these; of each: whether it gives them the way out."""
    return {f"{_NETWORK}{one}": _OUT if leads_out else _IN for one, leads_out in networks.items()}


def marked_networks(labels: Mapping[str, str]) -> frozenset[NetworkId]:
    """Those that a pod with these labels is on."""
    return frozenset(NetworkId(one.removeprefix(_NETWORK)) for one in labels if one.startswith(_NETWORK))


def on_network(network: NetworkId) -> Manifest:
    """A selector of the pods that bear its mark."""
    return {"matchExpressions": [{"key": f"{_NETWORK}{network}", "operator": "Exists"}]}


def led_out_by(network: NetworkId) -> Manifest:
    """A selector of those of them that it gives the way out."""
    return {"matchExpressions": [{"key": f"{_NETWORK}{network}", "operator": "In", "values": [_OUT]}]}


def replicas_in(values: Iterable[str]) -> Manifest:
    """A selector of the pods of these replicas; there must be one at least."""
    return {
        "matchExpressions": [{"key": f"{DOMAIN}/replica", "operator": "In", "values": sorted(set(values))}]
    }
