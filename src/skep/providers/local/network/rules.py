"""The packet rules: one table on the host, two in every router namespace.  Pure text, no I/O.

What is refused is dropped: to a tenant, the host and other tenants look like an address nobody has.
"""

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network

import msgspec

from skep.model.host import NetworkConfig, PortConfig, Publication
from skep.providers.local.network.naming import BRIDGE, UPLINK, bridge_end
from skep.providers.local.network.nft import Chain, Elements, Set, Table

ROUTER = "skep"
"""The tables of a router namespace, which belongs to us alone."""

MEMBERS = "members"
ANY_ADDRESS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared with, not bound to

MOST_FLOWS = 20_000
"""Connections to the outside that one network may have at a time: all share the host's table of them."""

_KNOWN_SENDER = "iifname . ether saddr . ip saddr @members"
_KNOWN_ARP_SENDER = (
    "iifname . ether saddr . arp saddr ip @members iifname . arp saddr ether . arp saddr ip @members"
)


class Route(msgspec.Struct, frozen=True):
    """A publication with the port of the router's link address it passes through."""

    publication: Publication
    link_port: int


def host_table(
    name: str,
    uplinks: str,
    pool: IPv4Network,
    private: tuple[IPv4Network, ...],
    published: Elements,
    at: Elements,
) -> Table:
    """The host's side: no way between networks, none to the host, out by NAT, in by publications.

    `published` maps `tcp . 80`, `at` maps `192.0.2.1 . tcp . 80`, both to `link address . link port`.
    """
    ours = f'"{uplinks}*"'
    hidden = ", ".join(str(network) for network in private)
    any_map = "fib daddr type local dnat ip to meta l4proto . th dport map @published"
    at_map = "fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @published_at"
    return Table(
        family="inet",
        name=name,
        sets=(
            Set("published", "map", "type inet_proto . inet_service : ipv4_addr . inet_service;", published),
            Set(
                "published_at",
                "map",
                "type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service;",
                at,
            ),
            Set("flows", "set", "type ipv4_addr; flags dynamic; size 65536;", None),
        ),
        chains=(
            Chain(
                "early",
                # Uplinks have route_localnet (for 127.0.0.1:published), so loopback is shut off here.
                (f"iifname {ours} ip daddr 127.0.0.0/8 drop",),
                "type filter hook prerouting priority raw; policy accept;",
            ),
            Chain("arriving", (at_map, any_map), "type nat hook prerouting priority dstnat; policy accept;"),
            Chain("local", (at_map, any_map), "type nat hook output priority -100; policy accept;"),
            Chain(
                "input",
                (f"iifname {ours} ct state established,related accept", f"iifname {ours} drop"),
                "type filter hook input priority filter; policy accept;",
            ),
            Chain(
                "forward",
                (
                    f"iifname != {ours} oifname != {ours} accept",
                    "ct state established,related accept",
                    f"iifname {ours} ct state new add @flows {{ ip saddr ct count over {MOST_FLOWS} }} drop",
                    f"oifname {ours} ct status dnat accept",
                    f"oifname {ours} drop",
                    *([f"iifname {ours} ip daddr {{ {hidden} }} drop"] if hidden else []),
                ),
                "type filter hook forward priority filter; policy accept;",
            ),
            Chain(
                "leaving",
                (
                    f"oifname {ours} ip saddr {{ 127.0.0.0/8, {pool} }} masquerade",
                    f"oifname != {ours} ip saddr {pool} masquerade",
                ),
                "type nat hook postrouting priority srcnat; policy accept;",
            ),
        ),
    )


def host_elements(routes: Iterable[tuple[Route, IPv4Address]]) -> tuple[Elements, Elements]:
    """The elements of `published` and `published_at`, from routes and their networks' link addresses."""
    published, at = {}, {}
    for route, link in routes:
        item = route.publication
        key, value = f"{item.protocol} . {item.published}", f"{link} . {route.link_port}"
        if item.host_ip in ANY_ADDRESS:
            published[key] = value
        else:
            at[f"{item.host_ip} . {key}"] = value
    return published, at


def router_tables(
    network: NetworkConfig, link: IPv4Address, ports: Iterable[PortConfig], routes: Iterable[Route]
) -> tuple[Table, Table]:
    """The router namespace of a network: who may send what, and the way in and out."""
    return _bridge_table(ports), _routing_table(network, link, tuple(routes))


def member(port: PortConfig) -> str:
    """The element of `members` that lets this port send."""
    return f"{bridge_end(port.id)} . {port.mac.lower()} . {port.address}"


def _bridge_table(ports: Iterable[PortConfig]) -> Table:
    return Table(
        family="bridge",
        name=ROUTER,
        sets=(
            Set(
                MEMBERS, "set", "type ifname . ether_addr . ipv4_addr;", {member(port): "" for port in ports}
            ),
        ),
        chains=(
            Chain(
                "from_ports",
                (
                    "ether type ip udp sport 67 udp dport 68 drop",
                    f"ether type ip {_KNOWN_SENDER} accept",
                    f"ether type arp {_KNOWN_ARP_SENDER} accept",
                ),
                "type filter hook prerouting priority -300; policy drop;",
            ),
        ),
    )


def _routing_table(network: NetworkConfig, link: IPv4Address, routes: tuple[Route, ...]) -> Table:
    open_routes = {_chain_name(route): route for route in routes if route.publication.addresses}
    dispatch = {
        f"{route.publication.protocol} . {route.link_port}": f"goto {name}"
        for name, route in open_routes.items()
    }
    outside = () if network.internal else _outside(link)
    return Table(
        family="inet",
        name=ROUTER,
        sets=(
            Set("dispatch", "map", "type inet_proto . inet_service : verdict;", dispatch),
            Set("askers", "set", "type ipv4_addr; flags dynamic; timeout 10s; size 65536;", None),
        ),
        chains=(
            Chain("input", _input(network), "type filter hook input priority filter; policy drop;"),
            Chain("forward", _forward(network), "type filter hook forward priority filter; policy drop;"),
            Chain("output", _OUTPUT, "type filter hook output priority filter; policy accept;"),
            *(Chain(name, (_balance(route.publication),)) for name, route in open_routes.items()),
            *outside,
        ),
    )


_OUTPUT = (
    # While skep restarts nobody listens on port 53: silence makes resolvers ask again, a refusal gives up.
    f'oifname "{BRIDGE}" icmp type destination-unreachable icmp code 3 drop',
    f'oifname "{BRIDGE}" tcp sport 53 tcp flags & rst == rst drop',
)


def _input(network: NetworkConfig) -> tuple[str, ...]:
    question = f'iifname "{BRIDGE}" ip daddr {network.gateway}'
    too_fast = "update @askers { ip saddr limit rate over 500/second burst 1000 packets } drop"
    refuse = (
        f'iifname "{UPLINK}" icmp type echo-request accept',
        f'iifname "{UPLINK}" meta l4proto tcp reject with tcp reset',
        f'iifname "{UPLINK}" reject',
    )
    return (
        'iifname "lo" accept',
        f"{question} udp dport 53 {too_fast}",
        f"{question} tcp dport 53 ct state new {too_fast}",
        "ct state established,related accept",
        "ct state invalid drop",
        f"{question} udp dport 53 accept",
        f"{question} tcp dport 53 accept",
        f"{question} icmp type echo-request accept",
        *(() if network.internal else refuse),
    )


def _forward(network: NetworkConfig) -> tuple[str, ...]:
    if network.internal:
        return ()
    return (
        "ct state established,related accept",
        "ct state invalid drop",
        f'iifname "{BRIDGE}" oifname "{UPLINK}" accept',
        f'iifname "{UPLINK}" oifname "{BRIDGE}" ct status dnat accept',
    )


def _outside(link: IPv4Address) -> tuple[Chain, ...]:
    return (
        Chain(
            "arriving",
            (f'iifname "{UPLINK}" ip daddr {link} meta l4proto . th dport vmap @dispatch',),
            "type nat hook prerouting priority dstnat; policy accept;",
        ),
        Chain(
            "leaving",
            (f'oifname "{UPLINK}" snat ip to {link}',),
            "type nat hook postrouting priority srcnat; policy accept;",
        ),
    )


def _chain_name(route: Route) -> str:
    return f"to_{route.publication.protocol}_{route.link_port}"


def _balance(item: Publication) -> str:
    targets = [f"{address} . {item.target}" for address in item.addresses]
    choices = ", ".join(f"{number} : {target}" for number, target in enumerate(targets))
    return f"meta l4proto {item.protocol} dnat ip to numgen random mod {len(targets)} map {{ {choices} }}"


def link_ports(
    wanted: Iterable[Publication], before: Mapping[tuple[str, str, int], int], taken: set[tuple[str, int]]
) -> tuple[int, ...]:
    """A port of the router's link address for every publication: what it had, else its own number, else any.

    Publications of one network may share a number on different host addresses, hence the choice.
    `before` is keyed by (protocol, host_ip, published); `taken` holds (protocol, port) of other services.
    """
    taken, chosen = set(taken), []
    for item in wanted:
        first = before.get((item.protocol, item.host_ip, item.published), item.published)
        candidates = (first, *range(1024, 65536))
        port = next(number for number in candidates if (item.protocol, number) not in taken)
        taken.add((item.protocol, port))
        chosen.append(port)
    return tuple(chosen)
