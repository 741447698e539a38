"""What of one tenant's networks is in the cluster, and what is to change there.  Pure."""

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lightkube.generic_resource import create_namespaced_resource
from lightkube.resources.core_v1 import ConfigMap, Endpoints, Secret, Service
from lightkube.resources.discovery_v1 import EndpointSlice
from lightkube.resources.networking_v1 import Ingress, NetworkPolicy

from skep.model.errors import SkepError
from skep.model.ids import NetworkId, ServiceId
from skep.providers.kubernetes.applied import digest, stands
from skep.providers.kubernetes.client.cluster import mark
from skep.providers.kubernetes.joining.gateways import GATEWAYS
from skep.providers.kubernetes.manifests import Manifest, TenantNamespace
from skep.providers.kubernetes.network.leading import HEADLESS
from skep.providers.kubernetes.network.policies import NAMED
from skep.providers.kubernetes.network.records import RECORD, TenantRecord
from skep.providers.kubernetes.network.services import VIRTUAL_IPS

HttpRoute = create_namespaced_resource(GATEWAYS, "v1", "HTTPRoute", "httproutes")
Key = tuple[str, str]
"""Kind and name."""
Failures = dict[Key, SkepError]
"""What the cluster said to what it refused."""

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
_WAVES = (
    ("ConfigMap", "NetworkPolicy", "Secret", "Service"),
    ("Endpoints", "EndpointSlice"),
    ("Ingress", "HTTPRoute"),
)
"""In the order in which they are made: what leads somewhere after what it leads to."""


@dataclass
class Tenancy:
    """One tenant's: what is known, what of it is in the cluster, and what the cluster refused."""

    of: TenantNamespace
    record: TenantRecord = field(default_factory=TenantRecord)
    there: dict[Key, str] = field(default_factory=dict)
    """What was applied, by digest; "": something is there, whatever it says."""
    uids: dict[Key, str] = field(default_factory=dict)
    """Which object that is: one that was deleted and made again has another."""
    left: dict[Key, Manifest] = field(default_factory=dict)
    """What an earlier process left, as it is now; until the first round has looked at it."""
    failed: Failures = field(default_factory=dict)
    """In the last round."""
    virtual: dict[ServiceId, str] = field(default_factory=dict)
    wrote: float = 0.0
    """When, by the clock of the loop, a round last changed something."""

    def take(self, kind: str, name: str, found: Manifest) -> None:
        """An earlier process left this in the tenant's namespace."""
        labels = found["metadata"].get("labels") or {}
        if mark(RECORD) in labels:
            self.record.read(labels[mark(RECORD)], found.get("data"))
        if kind == "Service":
            self.note_address(found)
        self.there[kind, name], self.left[kind, name] = "", found
        self.uids[kind, name] = found["metadata"].get("uid", "")

    def lost(self, key: Key, uid: str) -> bool:
        """Whether somebody deleted it: not so of what nobody wants, nor of one that was there before it."""
        return self.uids.get(key, uid) == uid and self.forget(key)

    def forget(self, key: Key) -> bool:
        """It is not there.  Answers whether it was known."""
        self.uids.pop(key, None)
        return self.there.pop(key, None) is not None

    def note_address(self, service: Manifest) -> None:
        """The one that the cluster gave to a virtual IP."""
        whose, given = _virtual_ip_of(service), service["spec"].get("clusterIP")
        if whose and given and given != HEADLESS:
            self.virtual[whose] = given

    def address_before(self, manifest: Manifest) -> str:
        """The one that a virtual IP had which is not there any more; "" of all others."""
        if manifest["kind"] != "Service" or key_of(manifest) in self.there:
            return ""
        whose = _virtual_ip_of(manifest)
        return self.virtual.get(whose, "") if whose else ""

    def changes(
        self, manifests: Iterable[Manifest], failed: Container[Key]
    ) -> tuple[list[Manifest], list[Key]]:
        """What is to be applied, and what is to go; not what this round failed at already."""
        asked = {key_of(one): one for one in manifests}
        self._take_over(asked)
        new = [one for key, one in asked.items() if self.there.get(key) != digest(one) and key not in failed]
        return new, [key for key in self.there if key not in asked and key not in failed]

    def must_stand(self, key: Key, failed: Container[Key]) -> bool:
        """A policy stays as it is while the one beside it could not be brought.

        Whoever one of them no longer admits is admitted by the other.
        """
        kind, name = key
        beside = name.removesuffix(NAMED) if name.endswith(NAMED) else name + NAMED
        return key in self.there and (kind, beside) in failed

    def waves(self, manifests: Iterable[Manifest]) -> Iterator[list[Manifest]]:
        """What may be applied at the same time, one after the other; where nothing is new, all of it.

        Policies that are new come before others change: what these no longer admit, those may.
        """
        known = list(manifests)
        fresh = [one for one in known if key_of(one) not in self.there]
        if not fresh:
            yield known
            return
        first = [one for one in fresh if one["kind"] == "NetworkPolicy"]
        if first and len(first) < sum(one["kind"] == "NetworkPolicy" for one in known):
            yield first
            known = [one for one in known if one not in first]
        for wave in _WAVES:
            yield [one for one in known if one["kind"] in wave]

    def _take_over(self, asked: Mapping[Key, Manifest]) -> None:
        """What is there just as it is to be need not be applied again."""
        for key in asked.keys() & self.left.keys():
            if self.there.get(key) == "" and stands(asked[key], self.left[key]):
                self.there[key] = digest(asked[key])
        self.left.clear()

    def has(self, network: NetworkId) -> bool:
        """Whether the network is in the cluster, as far as it goes."""
        return network in self.record.networks and ("ConfigMap", f"network-{network}") in self.there


def key_of(manifest: Manifest) -> Key:
    return manifest["kind"], manifest["metadata"]["name"]


def _virtual_ip_of(service: Manifest) -> ServiceId | None:
    """Whose virtual IP an object of kind Service is; None: it is none."""
    labels = service["metadata"].get("labels") or {}
    return ServiceId(labels[mark("service")]) if labels.get(mark("part")) == VIRTUAL_IPS else None
