"""What apps cannot have in a zone on a cluster.  Pure."""

from skep.model.needs import Need
from skep.providers.kubernetes.joining.facts import Facts

ALWAYS = frozenset(
    {
        Need.HOST_PATHS,
        Need.SHARED_VOLUMES,
        Need.KEPT_ROOT,
        Need.ADDRESSES,
        Need.PORTS,
        Need.EDGE,
        Need.CAPABILITIES,
        Need.SYSCTLS,
        Need.ULIMITS,
        Need.PIDS,
        Need.NAMED_USERS,
    }
)
"""No cluster has a word for these, or none may give them to tenants."""


def lacking(facts: Facts) -> frozenset[Need]:
    """Of this cluster."""
    found = set(ALWAYS)
    if not any(one.default for one in facts.classes):
        found.add(Need.VOLUMES)
    if not facts.serves("gateway.networking.k8s.io") and not facts.ingress_classes:
        found.add(Need.ENDPOINTS)
    return frozenset(found)
