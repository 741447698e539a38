"""What apps cannot have in a zone on a cluster.  Pure."""

from skep.model.needs import Need
from skep.providers.kubernetes.joining.addressing import Addressing
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
        Need.INIT,
        Need.TMPFS_MODES,
        Need.VARIABLES,
    }
)
"""No cluster has a word for these, or none may give them to tenants."""


def lacking(facts: Facts) -> frozenset[Need]:
    """Of this cluster."""
    entrance = bool(facts.ingress_classes or facts.gateways)
    return lacks(
        volumes=facts.usual_class is not None,
        snapshots=facts.snapshots is not None,
        entrance=entrance,
        addressing=facts.addressing,
    )


def lacks(*, volumes: bool, snapshots: bool, entrance: bool, addressing: Addressing) -> frozenset[Need]:
    """Of one that has a usual class of volumes, snapshots of these, something that leads requests in, and
    fixed addresses."""
    missing = {
        Need.VOLUMES: not volumes,
        Need.SNAPSHOTS: not snapshots,
        Need.ENDPOINTS: not entrance,
        Need.ADDRESSES: not addressing.ranges,
        Need.MACS: not addressing.macs,
    }
    return ALWAYS | {need for need, lacking in missing.items() if lacking}
