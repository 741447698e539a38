"""Which pod stands for a replica, and where.  Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lightkube.resources.core_v1 import Pod

from skep.model.ids import NetworkId, ReplicaId
from skep.providers.kubernetes.manifests import DOMAIN, marked_networks


@dataclass(frozen=True)
class Standing:
    """A pod that runs: its name and namespace, its address, and whether its checks are well."""

    pod: str
    namespace: str
    address: str
    ready: bool


@dataclass(frozen=True)
class Bearing:
    """Which networks a pod says that it is on; those that older versions of skep made say none."""

    pod: str
    networks: frozenset[NetworkId]


Standings = Mapping[ReplicaId, Standing]


def replica(pod: Pod) -> ReplicaId | None:
    """Whose it is; None: nobody's yet."""
    found = ((pod.metadata and pod.metadata.labels) or {}).get(f"{DOMAIN}/replica")
    return ReplicaId(found) if found else None


def bearing(pod: Pod) -> Bearing:
    meta = pod.metadata
    return Bearing((meta and meta.name) or "", marked_networks((meta and meta.labels) or {}))


def standing(pod: Pod) -> Standing | None:
    """None: it does not run, or is on its way out."""
    meta, status = pod.metadata, pod.status
    if meta is None or status is None or meta.deletionTimestamp is not None:
        return None
    if status.phase != "Running" or not status.podIP:
        return None
    ready = any(one.type == "ContainersReady" and one.status == "True" for one in status.conditions or ())
    return Standing(meta.name or "", meta.namespace or "", status.podIP, ready)


def shared(weights: Mapping[ReplicaId, int]) -> list[ReplicaId]:
    """Those that get connections, so many that each weight has its share of them.

    Kubernetes knows no shares: everybody behind a service gets as many as any other.  So of those that have
    less than the highest weight only some are there, in that ratio, and at least one.
    """
    highest = max(weights.values(), default=0)
    groups: dict[int, list[ReplicaId]] = {}
    for replica, weight in weights.items():
        if weight > 0:
            groups.setdefault(weight, []).append(replica)
    return [
        replica
        for weight, members in groups.items()
        for replica in members[: max(1, round(len(members) * weight / highest))]
    ]


def serving(weights: Mapping[ReplicaId, int], known: Standings) -> list[ReplicaId]:
    """Whoever gets connections: of those that answer now as many as their weights say."""
    running = {one: weight for one, weight in weights.items() if weight and one in known}
    ready = {one: weight for one, weight in running.items() if known[one].ready}
    return shared(ready or running)


def answering(replicas: Iterable[ReplicaId], known: Standings) -> list[Standing]:
    """Those of a service that connections go to: if none of those that run is ready, all of them, since a
    check that fails must not take the last one away."""
    running = [known[one] for one in replicas if one in known]
    return [one for one in running if one.ready] or running
