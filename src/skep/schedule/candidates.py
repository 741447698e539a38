"""Hosts and groups of replicas as the scheduler sees them: snapshots."""

from collections.abc import Mapping

import msgspec

from skep.model.ids import Bytes, HostName, TenantId
from skep.model.placement import Constraint


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A host.  `promised` is what the replicas have that it runs already; capacities include overcommit.

    `refuses` says in words why nothing new goes there ("" if it may); `tenant` is the only one who may use
    it, None: everybody may.  `attributes` are what constraints and preferences ask for.
    """

    host: HostName
    zone: str
    region: str = ""
    pool: str = ""
    refuses: str = ""
    tenant: TenantId | None = None
    cpus: float
    memory: Bytes
    promised_cpus: float = 0.0
    promised_memory: Bytes = Bytes(0)
    attributes: Mapping[str, str] = {}
    cluster: str = ""
    """It is no machine but the cluster of this zone."""


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Replicas that are alike and are placed together: what each needs, and how they lie to one another.

    `present` are those of the same kind that are there already, by host.  `spread` are the attributes over
    whose values they are spread, the first one first; hosts come last by themselves.
    """

    what: str
    """Its name in refusals: `shop/web`."""
    tenant: TenantId
    replicas: int
    cpus: float = 0.0
    memory: Bytes
    constraints: tuple[Constraint, ...] = ()
    zones: tuple[str, ...] = ()
    """Only these; empty: all."""
    spread: tuple[str, ...] = ("node.region", "node.zone")
    pack: bool = False
    """Fill hosts one after the other instead."""
    max_per_host: int | None = None
    present: Mapping[HostName, int] = {}
    cluster: str = ""
    """They go to the cluster of this zone; empty: to machines."""
