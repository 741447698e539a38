"""What Ingresses ask for, as routes, and these as the configuration of HAProxy.  Pure.

As the documentation of Kubernetes has it (https://kubernetes.io/docs/concepts/services-networking/ingress/):
an exact name goes before a wildcard (of one label), and that before rules for all names; of paths the longest
that matches, `Exact` before `Prefix`; a prefix is one of whole elements.  What nothing matches is the default
backend's, or a 404.  Annotations mean nothing here, and nobody who comes by HTTP is sent to HTTPS.
"""

import base64
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
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
class Route:
    """`host`: "" for all; `path` without a slash at its end: "" for all."""

    host: str
    path: str
    exact: bool
    target: Target


@dataclass(frozen=True)
class Known:
    """What the API server has of each kind."""

    classes: Collection[Object] = ()
    ingresses: Collection[Object] = ()
    services: Collection[Object] = ()
    endpoints: Collection[Object] = ()
    secrets: Collection[Object] = ()

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


def routes(ingresses: Iterable[Object]) -> list[Route]:
    """In the order in which they are to be tried."""
    found: dict[tuple[str, str, bool], Route] = {}
    for one in ingresses:
        for host, path in _paths(one):
            exact = path.get("pathType") == "Exact"
            asked = path.get("path", "/")
            route = Route(host, asked if exact else asked.rstrip("/"), exact, _target(one, path["backend"]))
            found.setdefault((host, route.path, exact), route)
    return sorted(found.values(), key=_order)


def default(ingresses: Iterable[Object]) -> Target | None:
    """Where all goes that no rule is for."""
    told = (
        _target(one, one["spec"]["defaultBackend"]) for one in ingresses if "defaultBackend" in one["spec"]
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


def configuration(known: Known, *, address: str, admin: str, crt_list: str) -> str:
    """`admin`: the socket by which the next process takes the ports over."""
    ingresses = known.ours()
    ordered, rest = routes(ingresses), default(ingresses)
    targets = {route.target for route in ordered} | ({rest} if rest else set())
    lines = [
        *_general(admin),
        "frontend all",
        f"    bind {address}:80",
        f"    bind {address}:443 ssl strict-sni crt-list {crt_list} alpn h2,http/1.1",
        "    http-request set-header X-Forwarded-Proto http unless { ssl_fc }",
        "    http-request set-header X-Forwarded-Proto https if { ssl_fc }",
        "    http-request set-var(txn.host) req.hdr(host),host_only,lower",
        *_chosen(ordered),
        f"    default_backend {rest.name if rest else _NOWHERE}",
        f"backend {_NOWHERE}",
        '    http-request return status 404 content-type text/plain string "No ingress leads there."',
    ]
    for target in sorted(targets, key=lambda one: one.name):
        lines += [f"backend {target.name}", "    balance roundrobin"]
        lines += [f"    server {one} {one}" for one in servers(target, known)]
    return "\n".join(lines) + "\n"


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


def _chosen(ordered: Iterable[Route]) -> Iterator[str]:
    """A name that has rules of its own has no others: what they do not match is nowhere."""
    last = None
    for route in ordered:
        if last is not None and last != route.host:
            yield from _use(_NOWHERE, _of_host(last), "")
        last = route.host
        path = f"{{ path -m str {_quoted(route.path or '/')} }}"
        if route.path or route.exact:
            yield from _use(route.target.name, _of_host(route.host), path)
        if not route.exact:
            within = f"{{ path -m beg {_quoted(route.path + '/')} }}" if route.path else ""
            yield from _use(route.target.name, _of_host(route.host), within)


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


def _target(ingress: Object, backend: Object) -> Target:
    service: Mapping[str, Any] = backend["service"]
    port = service["port"].get("number") or service["port"]["name"]
    return Target(ingress["metadata"]["namespace"], service["name"], str(port))


def _class(ingress: Object) -> str:
    return ingress["spec"].get("ingressClassName") or _note(ingress, _BEFORE_CLASSES) or ""


def _note(thing: Object, name: str) -> str | None:
    note: str | None = (thing["metadata"].get("annotations") or {}).get(name)
    return note
