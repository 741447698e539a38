"""Gateways through which requests may come into a cluster.

Format: https://gateway-api.sigs.k8s.io/reference/spec/
"""

from collections.abc import Iterable
from typing import Any

from lightkube.generic_resource import create_namespaced_resource

GATEWAYS = "gateway.networking.k8s.io"
"""Their API group."""
Gateway = create_namespaced_resource(GATEWAYS, "v1", "Gateway", "gateways")


def open_gateways(found: Iterable[Any]) -> list[tuple[str, str]]:
    """Those that take routes of all namespaces, in order: namespace and name."""
    return sorted((one.metadata.namespace, one.metadata.name) for one in found if _is_open(one))


def _is_open(gateway: Any) -> bool:
    spec = gateway.get("spec") or {}
    allowed = [(one.get("allowedRoutes") or {}).get("namespaces") or {} for one in spec.get("listeners", ())]
    return any(one.get("from") == "All" for one in allowed)
