"""Services whose pods skep names itself: a Service without a selector, and what it leads to.  Pure.

Where EndpointSlices are served in their final version they are written; older clusters make slices of
Endpoints by themselves.
Format: https://kubernetes.io/docs/concepts/services-networking/service/#services-without-selectors
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal

from skep.providers.kubernetes.manifests import Manifest, TenantNamespace

SLICES = "discovery.k8s.io/v1"
HEADLESS = "None"
_SLICE = 1000
"""The most endpoints that one slice may have."""


@dataclass(frozen=True, order=True)
class Door:
    """A port of a service, and of which number it is at the pods.  `node`: at every node, too."""

    port: int
    target: int
    protocol: Literal["tcp", "udp"] = "tcp"
    node: int | None = None

    @property
    def name(self) -> str:
        return f"{self.protocol}-{self.port}"


@dataclass(frozen=True, order=True)
class Place:
    """An address that a service leads to, by its doors; `host`: a name of its own below the service."""

    address: str
    host: str = ""
    doors: tuple[Door, ...] = ()


@dataclass(frozen=True)
class Service:
    """`kind` as Kubernetes has it; `part` and `labels` tell what of skep it is for."""

    name: str
    part: str
    labels: Mapping[str, str]
    places: tuple[Place, ...] = ()
    doors: tuple[Door, ...] = ()
    kind: Literal["ClusterIP", "NodePort"] = "ClusterIP"
    headless: bool = False

    def manifests(self, of: TenantNamespace, *, slices: bool) -> list[Manifest]:
        marks = {"part": self.part, **self.labels}
        led = self._slices(of, marks) if slices else [self._endpoints(of, marks)]
        return [of.object("v1", "Service", self.name, marks, spec=self._spec()), *led]

    def _spec(self) -> Manifest:
        spec: Manifest = {"type": self.kind}
        if self.headless:
            spec["clusterIP"] = HEADLESS
        if self.doors:
            spec["ports"] = [_service_port(door) for door in self.doors]
        return spec

    def _endpoints(self, of: TenantNamespace, marks: dict[str, str]) -> Manifest:
        subsets = [
            _filled("addresses", [_address(one) for one in places])
            | _filled("ports", [_port(door) for door in doors])
            for doors, places in _by_doors(self.places)
        ]
        endpoints = of.object("v1", "Endpoints", self.name, marks, subsets=subsets)
        endpoints["metadata"]["labels"] |= self._unproxied()
        return endpoints

    def _slices(self, of: TenantNamespace, marks: dict[str, str]) -> list[Manifest]:
        return [
            self._slice(of, marks, number, doors, batch)
            for number, (doors, batch) in enumerate(
                (doors, batch)
                for doors, places in _by_doors(self.places)
                for family in (4, 6)
                for batch in _batches([one for one in places if ip_address(one.address).version == family])
            )
        ]

    def _slice(
        self,
        of: TenantNamespace,
        marks: dict[str, str],
        number: int,
        doors: tuple[Door, ...],
        places: list[Place],
    ) -> Manifest:
        slice_ = of.object(
            SLICES,
            "EndpointSlice",
            f"{self.name}-{number}",
            marks,
            addressType=f"IPv{ip_address(places[0].address).version}",
            endpoints=[_endpoint(one) for one in places],
            ports=[_port(door) for door in doors],
        )
        slice_["metadata"]["labels"] |= {
            "kubernetes.io/service-name": self.name,
            "endpointslice.kubernetes.io/managed-by": "skep",
        } | self._unproxied()
        return slice_

    def _unproxied(self) -> dict[str, str]:
        """As the cluster itself labels what headless services lead to: no kube-proxy looks at it."""
        return {"service.kubernetes.io/headless": ""} if self.headless else {}


def _by_doors(places: Iterable[Place]) -> Iterator[tuple[tuple[Door, ...], list[Place]]]:
    """Addresses that are entered by the same doors, in an order that does not depend on anything else."""
    found: dict[tuple[Door, ...], list[Place]] = {}
    for place in sorted(set(places)):
        found.setdefault(place.doors, []).append(place)
    return iter(found.items())


def _batches(places: list[Place]) -> Iterator[list[Place]]:
    return (places[start : start + _SLICE] for start in range(0, len(places), _SLICE))


def _service_port(door: Door) -> Manifest:
    shown = {"nodePort": door.node} if door.node is not None else {}
    return {
        "name": door.name,
        "port": door.port,
        "targetPort": door.target,
        "protocol": door.protocol.upper(),
        **shown,
    }


def _port(door: Door) -> Manifest:
    return {"name": door.name, "port": door.target, "protocol": door.protocol.upper()}


def _address(place: Place) -> Manifest:
    return {"ip": place.address, **({"hostname": place.host} if place.host else {})}


def _endpoint(place: Place) -> Manifest:
    named = {"hostname": place.host} if place.host else {}
    return {"addresses": [place.address], "conditions": {"ready": True}, **named}


def _filled(key: str, values: Collection[Manifest]) -> Manifest:
    return {key: values} if values else {}
