"""What HTTPRoutes of the Gateway API ask for, as routes, as far as skep writes them.  Pure.

Host names, paths and weights, of routes whose Gateway is of our class and lets routes of all namespaces in
(https://gateway-api.sigs.k8s.io/reference/spec/).  The definitions of the kinds are the essential part of the
real ones: they check nothing.
"""

from collections.abc import Iterator

from tests.cluster.kubernetes.custom import definition
from tests.cluster.kubernetes.ingress_rules import Backend, Known, Object, Route, Target, key, route

GROUP = "gateway.networking.k8s.io"
API = f"/apis/{GROUP}/v1"
CLASS = "haproxy"
RECIPE = 2
"""Of programs that survive custom resources (`build.RECIPE`)."""
_KINDS = {"gateways": "Gateway", "httproutes": "HTTPRoute"}


def definitions() -> list[Object]:
    # The group is one that only its owners may define: so much about that this is not theirs.
    notes = {"api-approved.kubernetes.io": "unapproved, of the test cluster"}
    return [
        definition((GROUP, "v1"), plural, kind, "Namespaced", notes=notes, status=True)
        for plural, kind in _KINDS.items()
    ]


def gateway(namespace: str, name: str) -> Object:
    """One that lets in what asks for it."""
    listener = {
        "name": "http",
        "port": 80,
        "protocol": "HTTP",
        "allowedRoutes": {"namespaces": {"from": "All"}},
    }
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Gateway",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"gatewayClassName": CLASS, "listeners": [listener]},
    }


def http_routes(known: Known) -> Iterator[Route]:
    """The oldest first."""
    gates = {key(one) for one in known.gateways if one["spec"]["gatewayClassName"] == CLASS}
    age = sorted(known.routes, key=lambda one: (one["metadata"]["creationTimestamp"], key(one)))
    return (found for one in age if _parents(one) & gates for found in _routes(one))


def _parents(one: Object) -> set[tuple[str, str]]:
    own = one["metadata"]["namespace"]
    return {(parent.get("namespace", own), parent["name"]) for parent in one["spec"].get("parentRefs", ())}


def _routes(one: Object) -> Iterator[Route]:
    for number, rule in enumerate(one["spec"].get("rules", ())):
        backend = Backend(":".join((*key(one), str(number))), tuple(_parts(one, rule)))
        for host in one["spec"].get("hostnames") or [""]:
            for match in rule.get("matches") or [{}]:
                path = match.get("path", {})
                yield route(host, path.get("value", "/"), path.get("type") == "Exact", backend)


def _parts(one: Object, rule: Object) -> Iterator[tuple[Target, int]]:
    for to in rule.get("backendRefs", ()):
        target = Target(one["metadata"]["namespace"], to["name"], str(to["port"]))
        yield target, to.get("weight", 1)
