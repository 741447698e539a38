"""Everything that a tenant's networks are in the cluster, computed from what is known.  Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial

from skep.model.ids import ReplicaId, ServiceId
from skep.providers.kubernetes.manifests import Manifest, TenantNamespace
from skep.providers.kubernetes.network import entrances, services
from skep.providers.kubernetes.network.entrances import Entrance
from skep.providers.kubernetes.network.policies import policies
from skep.providers.kubernetes.network.records import TenantRecord
from skep.providers.kubernetes.network.standing import Bearing, Standings


@dataclass
class Circumstances:
    """What the cluster offers, and what has become of pods and services in it.

    `virtual` are the addresses that the cluster gave to services; `hidden` replicas have no names.
    """

    pods: Standings = field(default_factory=dict)
    bearings: Mapping[ReplicaId, Bearing] = field(default_factory=dict)
    hidden: Collection[ReplicaId] = ()
    virtual: Mapping[ServiceId, str] = field(default_factory=dict)
    certificates: Mapping[str, bytes] = field(default_factory=dict)
    entrance: Entrance | None = None
    slices: bool = False


def wanted(of: TenantNamespace, tenant: TenantRecord, now: Circumstances) -> list[Manifest]:
    """Nothing of a tenant who has nothing."""
    if tenant.empty:
        return []
    known = now.pods
    led = [
        *services.names(tenant, known, now.hidden, now.virtual),
        *services.virtual_ips(tenant, known),
        *services.published(tenant, known),
    ]
    entered: list[Manifest] = []
    if now.entrance is not None:
        led += services.backends(tenant, known, by_revision=now.entrance.gateway is not None)
        entered = [
            manifest
            for told in tenant.endpoints.values()
            for manifest in entrances.manifests(
                of, told, now.entrance, now.certificates, partial(services.shares, tenant=tenant, known=known)
            )
        ]
    return [
        *tenant.manifests(of),
        *policies(of, tenant, now.bearings),
        *(manifest for one in led for manifest in one.manifests(of, slices=now.slices)),
        *entered,
    ]
