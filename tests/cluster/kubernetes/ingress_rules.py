"""What Ingresses ask for, as routes, and routes as the configuration of HAProxy.  Pure.

As the documentation of Kubernetes has it (https://kubernetes.io/docs/concepts/services-networking/ingress/):
an exact name goes before a wildcard (of one label), and that before rules for all names; of paths the longest
that matches, `Exact` before `Prefix`; a prefix is one of whole elements.  What nothing matches is the default
backend's, or a 404.  Annotations mean nothing here, and nobody who comes by HTTP is sent to HTTPS.
"""

import base64
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

CONTROLLER = "skep.test/ingress"
"""What classes of ours name."""
DEFAULT = "ingressclass.kubernetes.io/is-default-class"
Object = dict[str, Any]
Key = tuple[str, str]
"""Namespace and name."""
_BEFORE_CLASSES = "kubernetes.io/ingress.class"
_NOWHERE = "nowhere"


@dataclass(frozen=True)
class Target:
    """A port of a service, by number or by name."""

    namespace: str
    service: str
    port: str

    @property
    def name(self) -> str:
        return f"{self.namespace}:{self.service}:{self.port}"


@dataclass(frozen=True)
class Backend:
    """Targets that requests are shared by, with their weights."""

    name: str
    parts: tuple[tuple[Target, int], ...]


@dataclass(frozen=True)
class Route:
    """`host`: "" for all; `path` without a slash at its end: "" for all."""

    host: str
    path: str
    exact: bool
    backend: Backend


@dataclass(frozen=True)
class Known:
    """What the API server has of each kind."""

    classes: Collection[Object] = ()
    ingresses: Collection[Object] = ()
    services: Collection[Object] = ()
    endpoints: Collection[Object] = ()
    secrets: Collection[Object] = ()
    gateways: Collection[Object] = ()
    routes: Collection[Object] = ()

    def ours(self) -> list[Object]:
        """Those that are for this controller, the oldest first: of two that say the same it counts."""
        classes = {one["metadata"]["name"]: one for one in self.classes}
        mine = {name for name, one in classes.items() if one["spec"].get("controller") == CONTROLLER}
        usual = any(_note(classes[name], DEFAULT) == "true" for name in mine)
        return sorted(
            (one for one in self.ingresses if _class(one) in mine or (usual and not _class(one))),
            key=lambda one: (one["metadata"]["creationTimestamp"], key(one)),
        )


def key(thing: Object) -> Key:
    return thing["metadata"]["namespace"], thing["metadata"]["name"]


def routes(ingresses: Iterable[Object]) -> Iterator[Route]:
    for one in ingresses:
        for host, path in _paths(one):
            yield route(
                host, path.get("path", "/"), path["pathType"] == "Exact", _backend(one, path["backend"])
            )


def route(host: str, path: str, exact: bool, backend: Backend) -> Route:
    return Route(host, path if exact else path.rstrip("/"), exact, backend)


def ordered(found: Iterable[Route]) -> list[Route]:
    """In the order in which they are to be tried; of two that say the same the first counts."""
    chosen: dict[tuple[str, str, bool], Route] = {}
    for one in found:
        chosen.setdefault((one.host, one.path, one.exact), one)
    return sorted(chosen.values(), key=_order)


def default(ingresses: Iterable[Object]) -> Backend | None:
    """Where all goes that no rule is for."""
    told = (
        _backend(one, one["spec"]["defaultBackend"]) for one in ingresses if "defaultBackend" in one["spec"]
    )
    return next(told, None)


def certificates(ingresses: Iterable[Object], secrets: Iterable[Object]) -> dict[str, bytes]:
    """Chain and key as PEM by the name that they are shown for."""
    known = {key(one): one.get("data") or {} for one in secrets}
    found: dict[str, bytes] = {}
    for one in ingresses:
        for tls in one["spec"].get("tls", ()):
            data = known.get((one["metadata"]["namespace"], tls.get("secretName", "")), {})
            if {"tls.crt", "tls.key"} <= data.keys():
                pem = b"\n".join(base64.b64decode(data[name]) for name in ("tls.crt", "tls.key"))
                for host in tls.get("hosts") or [
                    rule.get("host", "") for rule in one["spec"].get("rules", ())
                ]:
                    found.setdefault(host, pem)
    return found


def servers(target: Target, known: Known) -> list[str]:
    """ADDRESS:PORT of all that are ready behind the service."""
    whose = (target.namespace, target.service)
    ports = [
        port.get("name", "")
        for one in known.services
        if key(one) == whose
        for port in one["spec"].get("ports", ())
        if target.port in (str(port["port"]), port.get("name"))
    ]
    return sorted(
        f"{address['ip']}:{port['port']}"
        for one in known.endpoints
        if key(one) == whose
        for subset in one.get("subsets") or ()
        for port in subset.get("ports") or ()
        if port.get("name", "") in ports
        for address in subset.get("addresses") or ()
    )


def configuration(known: Known, found: Iterable[Route], *, address: str, admin: str, crt_list: str) -> str:
    """For these routes.  `admin`: the socket by which the next process takes the ports over."""
    tried, rest = ordered(found), default(known.ours())
    backends = {one.backend for one in tried} | ({rest} if rest else set())
    lines = [
        *_general(admin),
        "frontend all",
        f"    bind {address}:80",
        f"    bind {address}:443 ssl strict-sni crt-list {crt_list} alpn h2,http/1.1",
        "    http-request set-header X-Forwarded-Proto http unless { ssl_fc }",
        "    http-request set-header X-Forwarded-Proto https if { ssl_fc }",
        "    http-request set-var(txn.host) req.hdr(host),host_only,lower",
        *_chosen(tried),
        f"    default_backend {rest.name if rest else _NOWHERE}",
        f"backend {_NOWHERE}",
        '    http-request return status 404 content-type text/plain string "Nothing leads there."',
    ]
    for backend in sorted(backends, key=lambda one: one.name):
        lines += [f"backend {backend.name}", "    balance roundrobin"]
        lines += [f"    server {one} {one} weight {share}" for one, share in weights(backend, known).items()]
    return "\n".join(lines) + "\n"


def weights(backend: Backend, known: Known) -> dict[str, int]:
    """Of servers, so that all of a target together have its share; 256 is the most that HAProxy takes."""
    behind = [(servers(target, known), weight) for target, weight in backend.parts]
    shares = {one: Fraction(weight, len(found)) for found, weight in behind for one in found}
    whole = math.lcm(*(share.denominator for share in shares.values()))
    most = max(256, *(int(share * whole) for share in shares.values()), 0)
    return {one: round(share * whole * 256 / most) for one, share in shares.items()}


def _general(admin: str) -> list[str]:
    return [
        "global",
        f"    stats socket {admin} mode 600 level admin expose-fd listeners",
        "    nbthread 1",
        "    maxconn 1000",
        "    hard-stop-after 60s",
        "defaults",
        "    mode http",
        "    option forwardfor",
        # Whoever ends a replica that requests are still led to is to see it.
        "    retries 0",
        # A client whose connection is idle does not find it closed by a new configuration.
        "    option idle-close-on-response",
        "    timeout connect 5s",
        "    timeout client 60s",
        "    timeout server 60s",
    ]


def _chosen(tried: Iterable[Route]) -> Iterator[str]:
    """A name that has rules of its own has no others: what they do not match is nowhere."""
    last = None
    for one in tried:
        if last is not None and last != one.host:
            yield from _use(_NOWHERE, _of_host(last), "")
        last = one.host
        if one.path:
            path = f"{{ path -m str {_quoted(one.path)} }}"
            yield from _use(one.backend.name, _of_host(one.host), path)
        if not one.exact:
            within = f"{{ path -m beg {_quoted(one.path + '/')} }}" if one.path else ""
            yield from _use(one.backend.name, _of_host(one.host), within)


def _use(backend: str, *conditions: str) -> Iterator[str]:
    held = " ".join(filter(None, conditions)) or "TRUE"
    yield f"    use_backend {backend} if {held}"


def _of_host(host: str) -> str:
    if not host:
        return ""
    if host.startswith("*."):
        return f"{{ var(txn.host) -m reg {_quoted(f'^[^.]+{re.escape(host[1:])}$')} }}"
    return f"{{ var(txn.host) -m str {_quoted(host)} }}"


def _quoted(text: str) -> str:
    """As a word of HAProxy's configuration."""
    return "'" + text.replace("'", "'\\''") + "'"


def _order(route: Route) -> tuple[Any, ...]:
    return not route.host, route.host.startswith("*"), route.host, -len(route.path), not route.exact


def _paths(ingress: Object) -> Iterator[tuple[str, Object]]:
    for rule in ingress["spec"].get("rules", ()):
        for path in rule.get("http", {}).get("paths", ()):
            if "service" in path["backend"] and path.get("path", "/").isprintable():
                yield rule.get("host", ""), path


def _backend(ingress: Object, backend: Object) -> Backend:
    service: Mapping[str, Any] = backend["service"]
    port = service["port"].get("number") or service["port"]["name"]
    target = Target(ingress["metadata"]["namespace"], service["name"], str(port))
    return Backend(target.name, ((target, 1),))


def _class(ingress: Object) -> str:
    return ingress["spec"].get("ingressClassName") or _note(ingress, _BEFORE_CLASSES) or ""


def _note(thing: Object, name: str) -> str | None:
    note: str | None = (thing["metadata"].get("annotations") or {}).get(name)
    return note
