"""Who gets the connections of a service.  Pure; the one place where this is decided (docs/decisions/0020)."""

from collections.abc import Collection, Iterable

from skep.model.host import ContainerState, Health
from skep.model.ids import HostName
from skep.store.replicas import ReplicaRow

FULL = 100
"""The weight of a replica like any other."""


def serving(members: Iterable[ReplicaRow], clusters: Collection[HostName] = ()) -> list[ReplicaRow]:
    """Those of one service that new connections go to, each with its weight.

    If none of those that run is healthy, all of them: a check that fails must not take the last one away.
    Of `clusters` everybody who is to serve: which of them can they see themselves, sooner, so a hundred
    replicas that begin to run there are told of once.
    """
    admitted = [row for row in members if row.weight > 0 and row.desired == "running"]
    known = [row for row in admitted if row.host in clusters or _may_run(row)]
    return [row for row in known if row.host in clusters or _may_be_well(row)] or known


def home_of_host(host: HostName, clusters: Collection[HostName]) -> str:
    """What networks do not reach out of: a cluster, which is one host, or ("") all of skep's own together."""
    return host if host in clusters else ""


def near(members: Iterable[ReplicaRow], home: str, clusters: Collection[HostName]) -> list[ReplicaRow]:
    """Those that connections from this home reach.  An app has others only while it moves."""
    return [row for row in members if home_of_host(row.host, clusters) == home]


def _may_run(row: ReplicaRow) -> bool:
    """One that was admitted was ready then: it serves until something else is known of its container."""
    return (
        row.status is None or row.status.id != row.container_id or row.status.state is ContainerState.RUNNING
    )


def _may_be_well(row: ReplicaRow) -> bool:
    if row.status is None or row.status.id != row.container_id:
        return True
    return row.status.health in (Health.NONE, Health.HEALTHY)
