"""What of one tenant's networks is in the cluster, and what is to change there.  Pure."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from lightkube.generic_resource import create_namespaced_resource
from lightkube.resources.core_v1 import ConfigMap, Endpoints, Secret, Service
from lightkube.resources.discovery_v1 import EndpointSlice
from lightkube.resources.networking_v1 import Ingress, NetworkPolicy

from skep.model.errors import SkepError
from skep.model.ids import NetworkId, ServiceId
from skep.providers.kubernetes.joining.gateways import GATEWAYS
from skep.providers.kubernetes.manifests import Manifest, TenantNamespace
from skep.providers.kubernetes.network.records import TenantRecord

HttpRoute = create_namespaced_resource(GATEWAYS, "v1", "HTTPRoute", "httproutes")
Key = tuple[str, str]
"""Kind and name."""

KINDS: dict[str, type[Any]] = {
    "ConfigMap": ConfigMap,
    "NetworkPolicy": NetworkPolicy,
    "Secret": Secret,
    "Service": Service,
    "Endpoints": Endpoints,
    "EndpointSlice": EndpointSlice,
    "Ingress": Ingress,
    "HTTPRoute": HttpRoute,
}
"""In the order in which they are made."""


@dataclass
class Tenancy:
    """One tenant's: what is known, what of it is in the cluster, and what the cluster refused."""

    of: TenantNamespace
    record: TenantRecord = field(default_factory=TenantRecord)
    there: dict[Key, str] = field(default_factory=dict)
    """What was applied, by digest; "": something is there, whatever it says."""
    failed: dict[Key, SkepError] = field(default_factory=dict)
    virtual: dict[ServiceId, str] = field(default_factory=dict)

    def check(self, concerns: Callable[[Key], bool]) -> None:
        """Raises what the cluster said to something that it concerns."""
        for key, error in self.failed.items():
            if concerns(key):
                raise error

    def changes(self, manifests: Iterable[Manifest]) -> tuple[list[Manifest], list[Key]]:
        """What is to be applied, in the order of kinds, and what is to go; not what was refused before."""
        asked = {key_of(one): one for one in manifests}
        order = list(KINDS)
        new = [
            one
            for key, one in asked.items()
            if self.there.get(key) != digest_of(one) and key not in self.failed
        ]
        gone = [key for key in self.there if key not in asked and key not in self.failed]
        return sorted(new, key=lambda one: order.index(one["kind"])), gone

    def has(self, network: NetworkId) -> bool:
        """Whether the network is in the cluster, as far as it goes."""
        return network in self.record.networks and ("ConfigMap", f"network-{network}") in self.there


def key_of(manifest: Manifest) -> Key:
    return manifest["kind"], manifest["metadata"]["name"]


def digest_of(manifest: Manifest) -> str:
    return hashlib.blake2b(msgspec.json.encode(manifest), digest_size=16).hexdigest()
