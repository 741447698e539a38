"""The configuration of HAProxy 2.6 and the files beside it, as text.

It is read when HAProxy starts; afterwards everything but the number of slots changes through the runtime API.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from skep.providers.local.edge.layout import Layout, Server
from skep.providers.local.edge.place import Place

COOKIE = "skep-replica"

SERVER = (
    "check inter 30s fastinter 1s downinter 1s fall 2 rise 1 observe layer4 error-limit 3 on-error mark-down"
)
"""Of every server.  Connections that fail take a replica out at once, and a connection that succeeds brings
it back: what it answers is its own affair."""


PROOFS = "/.well-known/acme-challenge/"


_HOLDING = Path(__file__).with_name("hold.lua")
HOLD = 60
"""Seconds for which a request waits for somebody to serve."""
HELD, HELD_OF_ONE = 1_000, 100
"""Requests that wait at a time, in all and of one tenant; more are refused at once."""


class Entrance(msgspec.Struct, frozen=True):
    """Ports of the host, 0: none, for IPv4 and, `six`, IPv6.  `connections`: of all clients together."""

    http: int = 80
    https: int = 443
    connections: int = 4_000
    six: bool = False


def configuration(place: Place, entrance: Entrance, layout: Layout) -> str:
    slots = "\n".join(_slot(name, servers) for name, servers in layout.slots.items())
    return f"{frame(place, entrance)}\n{slots}\n"


def frame(place: Place, entrance: Entrance) -> str:
    """All but the slots: where it is another one, HAProxy must read it anew."""
    return (
        "\n\n".join((_global(place, entrance), _DEFAULTS, _SLOT, _TABLES, _frontend(place, entrance))) + "\n"
    )


def routes(layout: Layout) -> str:
    return "".join(f"{key} {route.text}\n" for key, route in sorted(layout.routes.items()))


def proofs(shown: Mapping[str, str]) -> str:
    return "".join(f"{key} {proof}\n" for key, proof in sorted(shown.items()))


def hold(place: Place) -> str:
    """The code that lets requests wait."""
    values = f'"{place.routes}", {HELD}, {HELD_OF_ONE}, {HOLD}'
    return f"local file, most, most_of_one, longest = {values}\n{_HOLDING.read_text()}"


def certificates(place: Place, shown: Mapping[str, str]) -> str:
    """`shown`: digests by host name.  The first line is what everybody else sees."""
    lines = [str(place.own_certificate), *(certificate_line(place, d, h) for h, d in sorted(shown.items()))]
    return "".join(f"{line}\n" for line in lines)


def certificate_line(place: Place, digest: str, host: str) -> str:
    return f"{place.certificate(digest)} {host}"


def server(one: Server) -> str:
    most = f" maxconn {one.most}" if one.most else ""
    return f"{one.address}:{one.port} weight {one.weight} {SERVER}{most}"


def _slot(name: str, servers: Mapping[str, Server]) -> str:
    lines = [
        f"backend {name} from slot",
        f"    use-server %[req.cook({COOKIE})] if {{ var(txn.sticky) -m found }}",
        *(f"    server {one.name} {server(one)}{_state(one)}" for one in servers.values()),
    ]
    return "\n".join(lines)


def _state(one: Server) -> str:
    return "" if one.up else " disabled"


def _global(place: Place, entrance: Entrance) -> str:
    return f"""\
global
    stats socket {place.admin} mode 600 level admin expose-fd listeners
    stats timeout 1m
    maxconn {entrance.connections}
    noreuseport
    hard-stop-after 24h
    lua-load {place.hold}
    log {place.log} len 4096 format raw local0
    ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets
    tune.ssl.default-dh-param 2048"""


_DEFAULTS = """\
defaults common
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    timeout tunnel 24h
    timeout http-request 15s
    timeout http-keep-alive 60s
    timeout queue 10s
    retries 3
    option redispatch 1
    retry-on conn-failure empty-response"""
"""A connection that is refused goes to another replica.  So does a request that a dying one left without an
answer, if it may be repeated: see also `REPEATED`."""

LOGGED = 100
"""Requests per second of an endpoint that each host writes down; errors of the server always are."""

REPEATED = 1_000
"""Requests per second of an endpoint on a host, beyond which none is repeated: HAProxy has to keep a copy of
each, which costs more than all the rules."""

_REPEATABLE = "GET HEAD OPTIONS PUT DELETE TRACE"
"""RFC 9110, 9.2.2."""

_SLOT = f"""\
defaults slot from common
    balance roundrobin
    http-request set-log-level silent if {{ be_sess_rate gt {LOGGED} }}
    http-request disable-l7-retry if {{ be_sess_rate gt {REPEATED} }} or !{{ method {_REPEATABLE} }}
    http-request set-timeout server var(txn.timeout) if {{ var(txn.timeout) -m found }}
    http-response add-header Set-Cookie "{COOKIE}=%s; Path=/; HttpOnly; SameSite=Lax" \
if {{ var(txn.sticky) -m found }}
    http-response set-log-level info if {{ status ge 500 }}"""


_TABLES = """\
backend rates from common
    stick-table type string len 96 size 200k expire 10s store http_req_rate(1s)"""


def _frontend(place: Place, entrance: Entrance) -> str:
    listed = f"ssl crt-list {place.certificates} alpn h2,http/1.1"
    binds = [f"    bind {one}" for one in _addresses(entrance, entrance.http)]
    binds += [f"    bind {one} {listed}" for one in _addresses(entrance, entrance.https)]
    rules = [f"    {line}" for line in _rules(place, entrance)]
    return "\n".join(["frontend edge from common", *binds, *rules])


def _addresses(entrance: Entrance, port: int) -> list[str]:
    six = [f":::{port} v6only"] if entrance.six else []
    return [f":{port}", *six] if port else []


_HOST = "req.hdr(host),field(1,:),lower"
_PLAIN = "http-request allow if { var(txn.route) -m end ||||| }"
"""Most endpoints are found by the name as it is written and want nothing special (`Route.text`): no more is
asked about them."""


def _rules(place: Place, entrance: Entrance) -> Iterable[str]:
    found = f"map_beg({place.routes})"
    # Written once for all requests of a connection.
    yield "tcp-request session set-var-fmt(sess.client) %[src]"
    yield "log global"
    asked = "%HM %HV %[var(txn.host)] %HPO"
    yield f'log-format "%Ts.%ms %[var(txn.route)] %ci %s %ST %Ta %B %ts {asked}"'
    # A keep-alive connection that is idle while HAProxy is replaced is closed with its next answer.
    yield "option idle-close-on-response"
    yield from _proving(place)
    yield f"http-request set-var(txn.route) base,concat(/),{found}"
    # Whatever a client says of that, under whatever name: a replica is to believe the edge alone.
    yield "http-request del-header forwarded -m sub"
    yield "http-request add-header X-Forwarded-For %[var(sess.client)]"
    yield "http-request add-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]"
    yield _PLAIN
    unknown = "unless { var(txn.route) -m found }"
    yield "http-request set-var(txn.path) path"
    yield f"http-request set-var(txn.host) {_HOST} {unknown}"
    yield f"http-request set-var(txn.route) var(txn.host),concat(,txn.path,/),{found} {unknown}"
    wider = "var(txn.host),regsub(^[^.]*,*)"
    yield f"http-request set-var(txn.route) {wider},concat(,txn.path,/),{found} {unknown}"
    yield f"http-request set-log-level silent {unknown}"
    nothing = 'string "No endpoint has this name and path.\\n"'
    yield f"http-request return status 404 content-type text/plain {nothing} {unknown}"
    yield _PLAIN
    yield from _special(entrance)
    yield "use_backend %[var(txn.route),field(1,|)]"


def _proving(place: Place) -> Iterable[str]:
    """Before all that tenants have, and before anybody is sent to HTTPS: RFC 8555, 8.3."""
    proof = f"{_HOST},concat(,txn.path),map_str({place.proofs})"
    asked = "{ var(txn.path) -m found }"
    yield f"http-request set-var(txn.path) path if {{ path_beg {PROOFS} }}"
    answer = f'return status 200 content-type text/plain lf-string "%[{proof}]"'
    yield f"http-request {answer} if {asked} {{ {proof} -m found }}"


def _special(entrance: Entrance) -> Iterable[str]:
    """What most endpoints do not want."""
    yield "http-request set-var(txn.flags) var(txn.route),field(3,|)"
    yield f"http-request set-var(txn.name) {_HOST}"
    if entrance.https:
        port = "" if entrance.https == 443 else f":{entrance.https}"
        yield (
            f"http-request redirect code 308 location https://%[var(txn.name)]{port}%[capture.req.uri] "
            "if !{ ssl_fc } { var(txn.flags) -m sub t }"
        )
        awaited = 'string "The certificate of this name is still to come. Until then: http, not https.\\n"'
        yield (
            f"http-request return status 503 content-type text/plain hdr Retry-After 10 {awaited} "
            "if { ssl_fc } { var(txn.flags) -m sub w }"
        )
    yield "http-request set-var(txn.sticky) bool(true) if { var(txn.flags) -m sub s }"
    for number, name in ((4, "rate"), (5, "timeout")):
        field = f"var(txn.route),field({number},|)"
        yield f"http-request set-var(txn.{name}) {field},add(0) if {{ {field} -m found }}"
    limited = "if { var(txn.rate) -m found }"
    yield f"http-request set-var(txn.endpoint) var(txn.route),field(2,|) {limited}"
    yield f"http-request set-var(txn.client) src,ipmask(32,64),concat(|,txn.endpoint) {limited}"
    yield f"http-request track-sc0 var(txn.client) table rates {limited}"
    yield (
        "http-request return status 429 content-type text/plain hdr Retry-After 1 "
        f'string "Too many requests.\\n" {limited} {{ sc0_http_req_rate,sub(txn.rate) gt 0 }}'
    )
    yield from _holding()


def _holding() -> Iterable[str]:
    """Who has waited for long, or is one of too many, is refused."""
    asleep = "if { var(txn.flags) -m sub h }"
    yield f"http-request set-var(txn.exact) var(txn.name),concat(,txn.path,/) {asleep}"
    yield f"http-request set-var(txn.wide) var(txn.name),regsub(^[^.]*,*),concat(,txn.path,/) {asleep}"
    yield f"http-request lua.hold {asleep}"
    yield f"http-request set-var(txn.flags) var(txn.route),field(3,|) {asleep}"
    nobody = 'string "Nobody serves this yet: it is being started.\\n"'
    yield f"http-request return status 503 content-type text/plain hdr Retry-After 5 {nobody} {asleep}"
