"""What apps cannot have in a zone on a cluster.  Pure."""

from skep.model.needs import Need
from skep.providers.kubernetes.joining.facts import Facts

ALWAYS = frozenset(
    {
        Need.HOST_PATHS,
        Need.SHARED_VOLUMES,
        Need.KEPT_ROOT,
        Need.PORTS,
        Need.EDGE,
        Need.CAPABILITIES,
        Need.SYSCTLS,
        Need.ULIMITS,
        Need.PIDS,
        Need.NAMED_USERS,
        Need.SHARES,
        Need.MAX_PER_NODE,
        Need.SNAPSHOTS,
    }
)
"""No cluster has a word for these, or none may give them to tenants."""


def lacking(facts: Facts) -> frozenset[Need]:
    """Of this cluster."""
    entrance = bool(facts.ingress_classes or facts.gateways)
    return lacks(
        volumes=any(one.default for one in facts.classes),
        entrance=entrance,
        addresses=bool(facts.addressing.ranges),
    )


def lacks(*, volumes: bool, entrance: bool, addresses: bool) -> frozenset[Need]:
    """Of one that has a usual class of volumes, something that leads requests in, and fixed addresses."""
    missing = {Need.VOLUMES: not volumes, Need.ENDPOINTS: not entrance, Need.ADDRESSES: not addresses}
    return ALWAYS | {need for need, lacking in missing.items() if lacking}
