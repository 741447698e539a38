"""The ingress controller of the test cluster, with a HAProxy of its own and no cluster."""

import base64
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from tests.cluster.kubernetes import gateway_rules
from tests.cluster.kubernetes.certificates import Authority
from tests.cluster.kubernetes.ingress import Haproxy, ingress_class
from tests.cluster.kubernetes.ingress_rules import (
    CONTROLLER,
    Backend,
    Known,
    Target,
    default,
    ordered,
    routes,
    servers,
    weights,
)

ADDRESS = "127.83.7.1"
"""Of this machine alone, and of nobody else on it."""


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[Haproxy]:
    yield Haproxy(tmp_path / "haproxy")
    with suppress(FileNotFoundError):
        for pid in (tmp_path / "haproxy" / "pid").read_text().split():
            subprocess.run(["kill", "-9", pid], check=True)


@pytest.fixture
def answering() -> Iterator[dict[str, int]]:
    """Servers that say their names, and their ports."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(_Server(name)).server_port for name in ("one", "two", "three", "rest")
        }


class _Server(ThreadingHTTPServer):
    def __init__(self, name: str) -> None:
        class Says(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(name)))
                self.end_headers()
                self.wfile.write(name.encode())

            def log_message(self, *words: object) -> None:
                """Nobody reads it."""

        super().__init__(("127.0.0.1", 0), Says)
        Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def server_close(self) -> None:
        self.shutdown()
        super().server_close()


@pytest.mark.root
@pytest.mark.parametrize("tls", [False, True])
def test_requests_go_where_the_documentation_of_ingresses_says(
    haproxy: Haproxy, answering: dict[str, int], tmp_path: Path, tls: bool
) -> None:
    rules = [
        _rule(
            "shop.example", ("/", "Prefix", "one"), ("/aaa/bb", "Prefix", "two"), ("/foo", "Exact", "three")
        ),
        _rule("*.example", ("/aaa/", "Prefix", "two")),
        _rule("", ("/everywhere", "Prefix", "three")),
    ]
    names = ["shop.example", "x.example", "elsewhere"]
    secret, trusted = _secret(tmp_path, names)
    one = _ingress("one", rules=rules, tls=[{"hosts": names, "secretName": "t"}])

    haproxy.serve(_known([one], answering, secrets=[secret]), ADDRESS)

    expected = {
        ("shop.example", "/"): "one",
        ("SHOP.example:80", "/aaa/bbb"): "one",
        ("shop.example", "/aaa/bb"): "two",
        ("shop.example", "/aaa/bb/"): "two",
        ("shop.example", "/aaa/bb/ccc?x=/foo"): "two",
        ("shop.example", "/foo"): "three",
        ("shop.example", "/foo/"): "one",
        ("shop.example", "/everywhere"): "one",
        ("x.example", "/aaa"): "two",
        ("x.example", "/aaa/ccc"): "two",
        ("x.example", "/ccc"): "",
        ("a.x.example", "/aaa"): "",
        ("elsewhere", "/everywhere/"): "three",
        ("elsewhere", "/everywherever"): "",
    }
    asked = [(host, path) for host, path in expected if not tls or host in names]
    with httpx.Client(verify=trusted if tls else True, trust_env=False) as client:
        found = {place: _ask(client, *place, tls=tls) for place in asked}
    assert found == {place: expected[place] for place in asked}


@pytest.mark.root
def test_a_connection_outlives_a_new_configuration_and_unknown_names_are_shown_no_certificate(
    haproxy: Haproxy, answering: dict[str, int], tmp_path: Path
) -> None:
    secret, trusted = _secret(tmp_path, ["shop.example"])
    broken = secret | {
        "metadata": {"namespace": "shop", "name": "broken"},
        "data": {"tls.crt": "", "tls.key": ""},
    }
    shown = {"shop.example": "t", "other.example": "broken", "no.example": "absent"}
    tls = [{"hosts": [host], "secretName": name} for host, name in shown.items()]

    def lead_to(service: str) -> None:
        one = _ingress("one", rules=[_rule("shop.example", ("/", "Prefix", service))], tls=tls)
        haproxy.serve(_known([one], answering, secrets=[secret, broken]), ADDRESS)

    with httpx.Client(verify=trusted, trust_env=False) as client:
        lead_to("one")
        first = _ask(client, "shop.example", "/", tls=True)
        lead_to("two")
        then = [_ask(client, "shop.example", "/", tls=True) for _ in range(2)]

        # The next answer is still the old process's, which closes with it.
        assert [first, *then] == ["one", "one", "two"]
    for other in ("other.example", "no.example"):
        with (
            httpx.Client(verify=trusted, trust_env=False) as client,
            pytest.raises(httpx.ConnectError, match="UNRECOGNIZED_NAME"),
        ):
            _ask(client, other, "/", tls=True)


def test_only_ingresses_of_its_class_count_or_without_one_while_it_is_the_default() -> None:
    other = {"metadata": {"name": "other"}, "spec": {"controller": "example.com/other"}}
    ours = ingress_class()
    plain = ours | {"metadata": {"name": "haproxy"}}
    all_of_them = [
        _ingress("named", ingressClassName="haproxy"),
        _ingress("noted", annotations={"kubernetes.io/ingress.class": "haproxy"}),
        _ingress("foreign", ingressClassName="other"),
        _ingress("absent", ingressClassName="nothing"),
        _ingress("bare"),
    ]

    def chosen(*classes: dict[str, Any]) -> list[str]:
        return [one["metadata"]["name"] for one in Known(classes=classes, ingresses=all_of_them).ours()]

    assert ours["spec"]["controller"] == CONTROLLER
    assert chosen(ours, other) == ["bare", "named", "noted"]
    assert chosen(plain, other) == ["named", "noted"]
    assert chosen(other) == []


def test_of_two_ingresses_that_say_the_same_the_older_one_counts() -> None:
    younger = _ingress("a", created="2026-01-02T00:00:00Z", rules=[_rule("h", ("/", "Prefix", "two"))])
    older = _ingress("b", created="2026-01-01T00:00:00Z", rules=[_rule("h", ("/", "Prefix", "one"))])

    known = Known(classes=[ingress_class()], ingresses=[younger, older])

    assert [one.backend.name for one in ordered(routes(known.ours()))] == ["shop:one:80"]


def test_a_port_is_meant_by_number_or_name_and_only_who_is_ready_is_behind_it() -> None:
    rest = _ingress("a", defaultBackend={"service": {"name": "web", "port": {"name": "http"}}})
    told = default([rest])
    ports = [{"name": "http", "port": 80, "targetPort": 8080}, {"name": "other", "port": 81}]
    service = {"metadata": {"namespace": "shop", "name": "web"}, "spec": {"ports": ports}}
    subset = {
        "addresses": [{"ip": "10.0.0.2"}, {"ip": "10.0.0.1"}],
        "notReadyAddresses": [{"ip": "10.0.0.3"}],
        "ports": [{"name": "http", "port": 8080}, {"name": "other", "port": 8081}],
    }
    known = Known(services=[service], endpoints=[{"metadata": service["metadata"], "subsets": [subset]}])

    assert told is not None
    ((target, _),) = told.parts
    assert servers(target, known) == ["10.0.0.1:8080", "10.0.0.2:8080"]


def test_targets_have_their_shares_however_many_servers_they_have() -> None:
    old, new = (Target("shop", name, "80") for name in ("old", "new"))
    services = [
        {"metadata": {"namespace": "shop", "name": name}, "spec": {"ports": [{"port": 80}]}}
        for name in ("old", "new")
    ]
    endpoints = [
        {"metadata": one["metadata"], "subsets": [{"addresses": addresses, "ports": [{"port": 80}]}]}
        for one, addresses in zip(
            services, ([{"ip": "a"}, {"ip": "b"}, {"ip": "c"}], [{"ip": "d"}]), strict=True
        )
    ]
    known = Known(services=services, endpoints=endpoints)

    def shares(*of: int) -> dict[str, int]:
        return weights(Backend("shop", tuple(zip((old, new), of, strict=True))), known)

    assert shares(1, 0) == {"a:80": 1, "b:80": 1, "c:80": 1, "d:80": 0}
    assert shares(95, 5) == {"a:80": 95, "b:80": 95, "c:80": 95, "d:80": 15}
    assert shares(30_000, 10_000) == {"a:80": 256, "b:80": 256, "c:80": 256, "d:80": 256}


def test_routes_of_gateways_of_its_class_are_served() -> None:
    ours = gateway_rules.gateway("infra", "ours")
    other = gateway_rules.gateway("infra", "other")
    other["spec"]["gatewayClassName"] = "foreign"

    def led_by(name: str) -> dict[str, Any]:
        rule = {
            "matches": [{"path": {"type": "PathPrefix", "value": "/api"}}],
            "backendRefs": [{"name": "web-1", "port": 80, "weight": 90}, {"name": "web-2", "port": 80}],
        }
        spec: dict[str, Any] = {
            "parentRefs": [{"namespace": "infra", "name": name}],
            "hostnames": [name],
            "rules": [rule],
        }
        return _ingress(name, **spec)

    known = Known(gateways=[ours, other], routes=[led_by("ours"), led_by("other"), led_by("absent")])

    (found,) = gateway_rules.http_routes(known)

    assert (found.host, found.path, found.exact) == ("ours", "/api", False)
    assert [(to.service, weight) for to, weight in found.backend.parts] == [("web-1", 90), ("web-2", 1)]


def _ask(client: httpx.Client, host: str, path: str, *, tls: bool) -> str:
    """What answers; "": a 404."""
    scheme = "https" if tls else "http"
    extensions = {"sni_hostname": host} if tls else {}
    answer = client.get(f"{scheme}://{ADDRESS}{path}", headers={"Host": host}, extensions=extensions)
    return "" if answer.status_code == httpx.codes.NOT_FOUND else answer.raise_for_status().text


def _secret(folder: Path, names: list[str]) -> tuple[dict[str, Any], ssl.SSLContext]:
    """Called `t`, and what believes it."""
    authority = Authority(folder, "")
    data = {
        f"tls.{file.suffix[1:]}": base64.b64encode(file.read_bytes()).decode()
        for file in authority.certify("web", "web", addresses=names)
    }
    meta = {"namespace": "shop", "name": "t"}
    trusted = ssl.create_default_context(cafile=str(authority.certificate))
    return {"metadata": meta, "data": {"tls.crt": data["tls.crt"], "tls.key": data["tls.key"]}}, trusted


def _known(ingresses: list[dict[str, Any]], ports: dict[str, int], secrets: list[dict[str, Any]]) -> Known:
    metas = {name: {"namespace": "shop", "name": name} for name in ports}
    return Known(
        classes=[ingress_class()],
        ingresses=ingresses,
        secrets=secrets,
        services=[{"metadata": meta, "spec": {"ports": [{"port": 80}]}} for meta in metas.values()],
        endpoints=[
            {
                "metadata": metas[name],
                "subsets": [{"addresses": [{"ip": "127.0.0.1"}], "ports": [{"port": port}]}],
            }
            for name, port in ports.items()
        ],
    )


def _rule(host: str, *paths: tuple[str, str, str]) -> dict[str, Any]:
    listed = [
        {"path": path, "pathType": kind, "backend": {"service": {"name": service, "port": {"number": 80}}}}
        for path, kind, service in paths
    ]
    return {"http": {"paths": listed}} | ({"host": host} if host else {})


def _ingress(
    name: str,
    created: str = "2026-01-01T00:00:00Z",
    annotations: dict[str, str] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    meta = {"namespace": "shop", "name": name, "creationTimestamp": created, "annotations": annotations or {}}
    return {"metadata": meta, "spec": spec}
