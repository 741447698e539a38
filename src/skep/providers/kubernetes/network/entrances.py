"""Endpoints of apps as an Ingress, or as HTTPRoutes where a Gateway leads into the cluster.  Pure.

What the standard has no word for is refused by name: annotations mean something else to every controller.
Formats: https://kubernetes.io/docs/concepts/services-networking/ingress/,
https://gateway-api.sigs.k8s.io/reference/spec/
"""

import base64
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from skep.model.edge import AppEndpoints, EdgeEndpoint
from skep.model.errors import Unsupported
from skep.providers.kubernetes.joining.gateways import GATEWAYS
from skep.providers.kubernetes.manifests import Manifest, TenantNamespace
from skep.providers.kubernetes.network.services import ENDPOINTS, HTTP, endpoint_name

_USUAL = 60.0
"""Seconds of patience that an endpoint has if nobody says otherwise, and controllers, too."""
_PEM = re.compile(rb"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----\s*", re.DOTALL)


@dataclass(frozen=True)
class Entrance:
    """What leads requests into the cluster: controllers of an ingress class, or a Gateway.

    Of a Gateway its namespace and name; certificates are then the Gateway's own.
    """

    ingress_class: str = ""
    gateway: tuple[str, str] | None = None


def check(told: AppEndpoints, entrance: Entrance | None) -> None:
    """Raises Unsupported: it cannot be served so."""
    if entrance is None and told.endpoints:
        raise Unsupported("This cluster has neither an ingress class nor a gateway: nothing leads endpoints.")
    for one in told.endpoints:
        if lacks := list(_lacks(one, entrance)):
            raise Unsupported(
                f"Endpoint {one.host}{one.path} cannot be served in a cluster with: {', '.join(lacks)}."
            )


def manifests(
    of: TenantNamespace,
    told: AppEndpoints,
    entrance: Entrance,
    certificates: Mapping[str, bytes],
    shares: Callable[[EdgeEndpoint], Mapping[int, int]],
) -> list[Manifest]:
    """`certificates`: those that could be had, by digest, with their keys as PEM; `shares` of revisions."""
    if not told.endpoints:
        return []
    if entrance.gateway is not None:
        return [_route(of, told, one, entrance.gateway, shares(one)) for one in told.endpoints]
    shown = {one.certificate for one in told.endpoints} & certificates.keys()
    secrets = [_secret(of, told, digest, certificates[digest]) for digest in sorted(shown)]
    return [*secrets, _ingress(of, told, entrance.ingress_class, shown)]


def _lacks(one: EdgeEndpoint, entrance: Entrance | None) -> Iterator[str]:
    asked = {
        "sticky": one.sticky,
        "max_connections": one.max_connections,
        "rate": one.rate,
        "timeout": one.timeout not in (None, _USUAL),
        "scaling to nothing": one.hold,
        "tls: acme": one.proof or one.awaited,
        "a certificate of its own (the gateway has one)": one.certificate and entrance and entrance.gateway,
    }
    return (name for name, wanted in asked.items() if wanted)


def _ingress(of: TenantNamespace, told: AppEndpoints, ingress_class: str, shown: Iterable[str]) -> Manifest:
    by_host: dict[str, list[Manifest]] = {}
    for one in told.endpoints:
        service = {"name": endpoint_name(one), "port": {"number": HTTP}}
        path = {"path": one.path, "pathType": "Prefix", "backend": {"service": service}}
        by_host.setdefault(one.host, []).append(path)
    secured = {(one.host, one.certificate) for one in told.endpoints if one.certificate in shown}
    spec: Manifest = {
        "ingressClassName": ingress_class,
        "rules": [{"host": host, "http": {"paths": paths}} for host, paths in sorted(by_host.items())],
    }
    if secured:
        spec["tls"] = [
            {"hosts": [host], "secretName": _secret_name(told, digest)} for host, digest in sorted(secured)
        ]
    return of.object("networking.k8s.io/v1", "Ingress", f"endpoints-{told.app}", _marks(told), spec=spec)


def _route(
    of: TenantNamespace,
    told: AppEndpoints,
    one: EdgeEndpoint,
    gateway: tuple[str, str],
    shares: Mapping[int, int],
) -> Manifest:
    """Shares are those of revisions, in which every replica of one has as much."""
    rule = {
        "matches": [{"path": {"type": "PathPrefix", "value": one.path}}],
        "backendRefs": [
            {"name": endpoint_name(one, revision), "port": HTTP, "weight": weight}
            for revision, weight in sorted(shares.items())
        ],
    }
    namespace, name = gateway
    spec = {
        "parentRefs": [{"namespace": namespace, "name": name}],
        "hostnames": [one.host],
        "rules": [rule],
    }
    return of.object(f"{GATEWAYS}/v1", "HTTPRoute", endpoint_name(one), _marks(told), spec=spec)


def _secret(of: TenantNamespace, told: AppEndpoints, digest: str, pem: bytes) -> Manifest:
    blocks = [(found[1], found[0]) for found in _PEM.finditer(pem)]
    key = b"".join(block for label, block in blocks if label.endswith(b"PRIVATE KEY"))
    chain = b"".join(block for label, block in blocks if label == b"CERTIFICATE")
    data = {name: base64.b64encode(value).decode() for name, value in (("tls.crt", chain), ("tls.key", key))}
    name = _secret_name(told, digest)
    return of.object("v1", "Secret", name, _marks(told), type="kubernetes.io/tls", data=data)


def _secret_name(told: AppEndpoints, digest: str) -> str:
    """Of the app's own: it goes with it."""
    return f"certificate-{told.app}-{digest.removeprefix('sha256:')[:20]}"


def _marks(told: AppEndpoints) -> dict[str, str]:
    return {"part": ENDPOINTS, "app-id": told.app}
