"""The names of a test cluster: the DNS that Kubernetes specifies for services, since Debian has no CoreDNS.

A service has the address of its own, or, if it is headless, those of its pods, by their host names, too; of a
host name that several endpoints have, those of all.
There is no way out: names of elsewhere do not exist.  SRV and PTR records are left out.
"""

import random
import sys
import threading
from collections.abc import Iterable, Mapping
from typing import Any

import httpx
from dnslib import AAAA, CNAME, QTYPE, RCODE, RR, A, DNSRecord
from dnslib.server import BaseResolver, DNSLogger, DNSServer
from tests.cluster.kubernetes import client
from tests.cluster.kubernetes.layout import CONTROL, Layout, saved

PROGRAM = "dns"
DOMAIN = "cluster.local"
Object = dict[str, Any]
Names = Mapping[str, tuple[str, ...]]
"""Addresses by full name, without the last dot; or the one name that it stands for."""
_TTL = 1
_PORT = 53
_QUIET = 60
"""Seconds after which it looks without having heard of anything."""
_WATCHED = ("/api/v1/services", "/api/v1/endpoints")
_ADDRESS_OF = {QTYPE.A: A, QTYPE.AAAA: AAAA}


def names(services: Iterable[Object], endpoints: Iterable[Object]) -> Names:
    """What these services are called, and where that leads."""
    pods = {_key(thing): thing for thing in endpoints}
    found: dict[str, tuple[str, ...]] = {}
    for service in services:
        namespace, name = _key(service)
        full, spec = f"{name}.{namespace}.svc.{DOMAIN}", service["spec"]
        if spec["type"] == "ExternalName":
            found[full] = (spec["externalName"],)
        elif spec["clusterIP"] == "None":
            early = bool(spec.get("publishNotReadyAddresses"))
            addresses = _addresses(pods.get((namespace, name), {}), early)
            found[full] = _together(addresses)
            for host in {address["hostname"] for address in addresses if address.get("hostname")}:
                found[f"{host}.{full}"] = _together(a for a in addresses if a.get("hostname") == host)
        else:
            found[full] = tuple(spec.get("clusterIPs") or (spec["clusterIP"],))
    return found


def answer(question: DNSRecord, known: Names) -> DNSRecord:
    """No such name: NXDOMAIN, so that clients go on with their next search domain.

    Records of a name have no order: every answer has another one, as CoreDNS does it.
    """
    reply = question.reply()
    asked = str(question.q.qname).rstrip(".").lower()
    if asked not in known:
        reply.header.rcode = RCODE.NXDOMAIN
        return reply
    for value in random.sample(known[asked], len(known[asked])):
        kind = _kind(value)
        if kind in (question.q.qtype, QTYPE.CNAME):
            data = CNAME(value) if kind == QTYPE.CNAME else _ADDRESS_OF[kind](value)
            reply.add_answer(RR(question.q.qname, kind, rdata=data, ttl=_TTL))
    return reply


def objects(layout: Layout) -> list[Object]:
    """The service by which pods ask, and where it leads: to a process of the control plane's machine."""
    metadata = {"name": "kube-dns", "namespace": "kube-system"}
    ports = [{"name": protocol.lower(), "port": _PORT, "protocol": protocol} for protocol in ("UDP", "TCP")]
    address = {"ip": str(layout.address(CONTROL))}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"clusterIP": str(layout.dns), "ports": ports},
        },
        {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": metadata,
            "subsets": [{"addresses": [address], "ports": ports}],
        },
    ]


class Resolver(BaseResolver):  # type: ignore[misc]  # dnslib has no types
    """Knows what the API server says, as of a moment ago."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Object]] = {path: [] for path in _WATCHED}
        self._names: Names = {}

    def resolve(self, request: DNSRecord, _handler: object) -> DNSRecord:
        return answer(request, self._names)

    def follow(self, layout: Layout, path: str) -> None:
        """For ever; the API server may come and go."""
        with client.connect(layout, "skep-test-dns") as api:
            while True:
                try:
                    found = client.get(api, path)
                    self._parts[path] = found["items"]
                    self._names = names(*(self._parts[part] for part in _WATCHED))
                    client.wait_for_change(api, path, found["metadata"]["resourceVersion"], _QUIET)
                except httpx.HTTPError as error:
                    print(error, flush=True)
                    client.pause(1)


def serve(layout: Layout) -> None:
    """For ever, in the network of the control plane's machine."""
    resolver = Resolver()
    quiet = DNSLogger("-request,-reply,-truncated", prefix=False)
    for tcp in (False, True):
        where = str(layout.address(CONTROL))
        DNSServer(resolver, address=where, port=_PORT, tcp=tcp, logger=quiet).start_thread()
    followers = [threading.Thread(target=resolver.follow, args=(layout, path)) for path in _WATCHED]
    for follower in followers:
        follower.start()
    for follower in followers:
        follower.join()


def _key(thing: Object) -> tuple[str, str]:
    return thing["metadata"]["namespace"], thing["metadata"]["name"]


def _addresses(pods: Object, early: bool) -> list[Object]:
    subsets = pods.get("subsets") or []
    kinds = ("addresses", "notReadyAddresses") if early else ("addresses",)
    return [address for subset in subsets for kind in kinds for address in subset.get(kind) or []]


def _together(addresses: Iterable[Object]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(address["ip"] for address in addresses))


def _kind(value: str) -> int:
    """Of the record that leads there."""
    if ":" in value:
        return int(QTYPE.AAAA)
    return int(QTYPE.A if value.replace(".", "").isdigit() else QTYPE.CNAME)


if __name__ == "__main__":
    found = saved(sys.argv[1])
    assert found is not None, "there is no such cluster"
    serve(found)
