"""The packet rules: one table on the host, two in every router namespace.  Pure text, no I/O.

What is refused is dropped: to a tenant, the host and other tenants look like an address nobody has.
"""

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import msgspec

from skep.model.host import Egress, NetworkConfig, PortConfig, Publication
from skep.providers.local.network import six
from skep.providers.local.network.naming import (
    BRIDGE,
    OVERLAY,
    ROUTERS,
    UPLINK,
    bridge_end,
    gateway_mac,
    link_address6,
    router_address,
    router_address6,
    router_mac,
)
from skep.providers.local.network.netlink import Way
from skep.providers.local.network.nft import Chain, Elements, Set, Table

ROUTER = "skep"
"""The tables of a router namespace, which belongs to us alone."""

OVERLAY_TABLE = "skep_overlay"

MEMBERS = "plugged"
"""Who is plugged in.  A set of another type needs another name: agents take over the tables of the release
before and of the one after, and the kernel changes the type of no set."""
_KNOWN_PEER = "0x5e9"
"""The mark of a frame that came through the overlay from a known peer."""
LEAVING = "0xe9"
"""The mark of what leaves by the egress address of its network, which another host has."""
ANY_ADDRESS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared with, not bound to

MOST_FLOWS = 20_000
"""Connections to the outside that one network may have at a time: all share the host's table of them."""

QUESTIONS = "500/second burst 1000 packets"
"""To the resolver, of one replica."""

PACE = "1000/second burst 5000 packets"
"""Of new connections of one network: those that are closed are not counted as open, yet stay in the table
for a while (`links.CONNECTIONS`)."""

_KNOWN_SENDER = "iif . ether saddr . ip saddr @plugged"
"""Interfaces by their numbers: looking up names takes longer (docs/decisions/0012)."""
_UNBRIDGED = f'iifname != {{ "lo", "{BRIDGE}", "{UPLINK}" }} drop'
"""What reaches the router in the name of a port of its bridge."""
_KNOWN_ARP_SENDER = "iif . ether saddr . arp saddr ip @plugged iif . arp saddr ether . arp saddr ip @plugged"


class Route(msgspec.Struct, frozen=True):
    """A publication with the port of the router's link address it passes through."""

    publication: Publication
    link_port: int


class Six(msgspec.Struct, frozen=True):
    """What the host has beside while a network has IPv6: two maps as for IPv4, and what is hidden."""

    published: Elements = {}
    at: Elements = {}
    private: tuple[IPv6Network, ...] = ()


class Tunnel(msgspec.Struct, frozen=True):
    """The VXLAN port of the host, and the underlay addresses of the hosts it speaks with."""

    port: int
    peers: frozenset[IPv4Address]

    @property
    def elements(self) -> Elements:
        return {str(address): "" for address in sorted(self.peers)}


def host_table(
    name: str,
    uplinks: str,
    pool: IPv4Network,
    private: tuple[IPv4Network, ...],
    published: Elements,
    at: Elements,
    tunnel: Tunnel | None = None,
    egress: Mapping[IPv4Address, IPv4Address] | None = None,
    dual: Six | None = None,
) -> Table:
    """The host's side: no way between networks, none to the host, out by NAT, in by publications.

    `published` maps `tcp . 80`, `at` maps `192.0.2.1 . tcp . 80`, both to `link address . link port`.
    With a `tunnel` its packets are taken from its peers only, and no tenant can send any.
    `egress` leads from link addresses to the egress addresses of their networks, which this host has.
    """
    fixed = {str(link): str(address) for link, address in (egress or {}).items()}
    ours = f'"{uplinks}*"'
    vxlan = f"udp dport {tunnel.port}" if tunnel else ""
    hidden = ", ".join(str(network) for network in private)
    any_map = "fib daddr type local dnat ip to meta l4proto . th dport map @published"
    at_map = "fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @published_at"
    to_services = (at_map, any_map, *(six.TO_SERVICES if dual else ()))
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
            Set("paces", "set", "type ipv4_addr; flags dynamic; timeout 60s; size 65536;", None),
            *([Set("underlay", "set", "type ipv4_addr;", tunnel.elements)] if tunnel else []),
            *(
                [
                    Set("egress", "map", "type ipv4_addr : ipv4_addr;", fixed),
                    Set("egress_addresses", "set", "type ipv4_addr;", dict.fromkeys(fixed.values(), "")),
                ]
                if fixed
                else []
            ),
            *(six.host_sets(dual.published, dual.at) if dual else ()),
        ),
        chains=(
            Chain(
                "early",
                (
                    *([f"{vxlan} goto vxlan"] if tunnel else []),
                    # Uplinks have route_localnet (for 127.0.0.1:published), so loopback is shut off here.
                    f"iifname {ours} ip daddr 127.0.0.0/8 drop",
                ),
                "type filter hook prerouting priority raw; policy accept;",
            ),
            *(_vxlan(ours, vxlan) if tunnel else ()),
            Chain("arriving", to_services, "type nat hook prerouting priority dstnat; policy accept;"),
            Chain("local", to_services, "type nat hook output priority -100; policy accept;"),
            Chain(
                "input",
                (
                    # For what comes back: what the host itself serves is not to be found there.
                    *(["ip daddr @egress_addresses ct state new drop"] if fixed else []),
                    f"iifname != {ours} accept",
                    "ct state established,related accept",
                    *([six.host_input(ours)] if dual else []),
                    "drop",
                ),
                "type filter hook input priority filter; policy accept;",
            ),
            Chain(
                "forward",
                (
                    f"iifname != {ours} oifname != {ours} accept",
                    # First: the machine of another host may ask for what is published here, and be answered.
                    "ct state established,related accept",
                    *([f"iifname {ours} ip daddr @underlay drop"] if tunnel else []),
                    # First the cheap question: counting takes longer the more there are.
                    f"iifname {ours} ct state new update @paces {{ ip saddr limit rate over {PACE} }} drop",
                    f"iifname {ours} ct state new add @flows {{ ip saddr ct count over {MOST_FLOWS} }} drop",
                    *(six.bounded(ours, PACE, MOST_FLOWS) if dual else ()),
                    f"oifname {ours} ct status dnat accept",
                    f"oifname {ours} drop",
                    *([f"iifname {ours} ip daddr {{ {hidden} }} drop"] if hidden else []),
                    *([six.hidden(ours, dual.private)] if dual else []),
                ),
                "type filter hook forward priority filter; policy accept;",
            ),
            Chain(
                "leaving",
                (
                    f"oifname {ours} ip saddr {{ 127.0.0.0/8, {pool} }} masquerade",
                    *([f"oifname != {ours} snat ip to ip saddr map @egress"] if fixed else []),
                    f"oifname != {ours} ip saddr {pool} masquerade",
                    *(six.masquerade(ours) if dual else ()),
                ),
                "type nat hook postrouting priority srcnat; policy accept;",
            ),
        ),
    )


def _vxlan(ours: str, vxlan: str) -> tuple[Chain, Chain]:
    """Taken from peers only, and sent by this host only; connections are not tracked, there are none."""
    return (
        Chain(
            "vxlan",
            (f"iifname {ours} drop", "ip saddr @underlay notrack accept", "fib daddr type local drop"),
        ),
        Chain("early_local", (f"{vxlan} notrack",), "type filter hook output priority raw; policy accept;"),
    )


def host_elements(
    routes: Iterable[tuple[Route, IPv4Address | IPv6Address]], version: int = 4
) -> tuple[Elements, Elements]:
    """The elements of `published` and `published_at`, from routes and their networks' link addresses.

    `::` is every address of both families, and so is `0.0.0.0`, as a bare port means in Compose.
    """
    published, at = {}, {}
    for route, link in routes:
        item = route.publication
        if item.host_ip not in ANY_ADDRESS and ip_address(item.host_ip).version != version:
            continue
        key, value = f"{item.protocol} . {item.published}", f"{link} . {route.link_port}"
        if item.host_ip in ANY_ADDRESS:
            published[key] = value
        else:
            at[f"{item.host_ip} . {key}"] = value
    return published, at


class Far(msgspec.Struct, frozen=True):
    """The targets that are on other hosts, and the address under which this host's router speaks to them."""

    router: IPv4Address
    targets: frozenset[IPv4Address]
    router6: IPv6Address | None = None
    targets6: frozenset[IPv6Address] = frozenset()


def router_tables(
    network: NetworkConfig,
    link: IPv4Address,
    ports: Iterable[PortConfig],
    routes: Iterable[Route],
    far: Far | None = None,
    egress: Egress | None = None,
) -> tuple[Table, Table]:
    """The router namespace of a network: who may send what, and the way in and out."""
    return _bridge_table(network, list(ports)), _routing_table(network, link, tuple(routes), far, egress)


def member(port: PortConfig) -> str:
    """The element of `members` that lets this port send.  Its interface must be there."""
    return f"{bridge_end(port.id)} . {port.mac.lower()} . {port.address}"


def elements(port: PortConfig) -> dict[str, str]:
    """All that lets this port send, by set."""
    return {MEMBERS: member(port), **six.elements(port)}


def _bridge_table(network: NetworkConfig, ports: list[PortConfig]) -> Table:
    return Table(
        family="bridge",
        name=ROUTER,
        sets=(
            Set(
                MEMBERS,
                "set",
                "type iface_index . ether_addr . ipv4_addr;",
                {member(port): "" for port in ports},
            ),
            *(six.bridge_sets(ports) if network.ipv6 else ()),
        ),
        chains=(
            *((six.BRIDGE_CHAIN,) if network.ipv6 else ()),
            Chain(
                "from_ports",
                (
                    f'iifname "{OVERLAY}" meta mark {_KNOWN_PEER} accept',
                    "ether type ip udp sport 67 udp dport 68 drop",
                    f"ether type ip {_KNOWN_SENDER} accept",
                    f"ether type arp {_KNOWN_ARP_SENDER} accept",
                    *((six.BRIDGE_RULE,) if network.ipv6 else ()),
                ),
                "type filter hook prerouting priority -300; policy drop;",
            ),
        ),
    )


def overlay_table(
    network: NetworkConfig, own: IPv4Address, ways: Iterable[Way], egress: Egress | None = None
) -> Table:
    """What may come through the overlay and what may leave; `own` is this host's underlay address.

    A table of its own, since it may hold ten thousand elements and changes at other times than the rest.
    Without it nothing comes in: it marks what the bridge's table lets pass.
    """
    known = list(ways)
    gateway, mac, address = gateway_mac(network.id), router_mac(network.id, own), router_address(own)
    own6 = router_address6(own) if network.ipv6 else None
    first = [way for way in known if way.address.version == 4]
    routers = {str(way.address): way.mac for way in first if way.address in ROUTERS}
    arriving, leaving = f'iifname "{OVERLAY}"', f'oifname "{OVERLAY}"'
    here, via = (egress.here, egress.via) if egress else (False, None)
    known_peer = f"meta mark set {_KNOWN_PEER} accept"
    to_us = f"ether daddr {mac} ether type ip ip daddr {address}"
    return Table(
        family="bridge",
        name=OVERLAY_TABLE,
        sets=(
            Set(
                "peers",
                "set",
                "type ether_addr . ipv4_addr;",
                {f"{way.mac} . {way.address}": "" for way in first},
            ),
            Set("routers", "map", "type ipv4_addr : ether_addr;", routers),
            *(six.overlay_sets(known) if own6 else ()),
        ),
        chains=(
            Chain(
                # Few chains: each costs every frame on its way as much as three rules.
                "from_overlay",
                (
                    f"{arriving} goto arriving",
                    # Answers to a router of another host go there, and not into the router of this one.
                    f"ether daddr {gateway} ether type ip ether daddr set ip daddr map @routers",
                    *((six.to_routers(gateway),) if own6 else ()),
                ),
                "type filter hook prerouting priority -310; policy accept;",
            ),
            Chain(
                "arriving",
                (
                    f"ether daddr {gateway} drop",
                    # Answers from outside, by the host that has the network's egress address.
                    *([f"ether saddr {router_mac(network.id, via)} {to_us} {known_peer}"] if via else []),
                    # Every host answers ARP from what it was told, so no broadcast has any business here.
                    "ether daddr & 01:00:00:00:00:00 != 00:00:00:00:00:00 drop",
                    f"ether type ip ether saddr . ip saddr @peers {known_peer}",
                    *(six.arriving(_KNOWN_PEER) if own6 else ()),
                    "drop",
                ),
            ),
            Chain(
                "to_router",
                (
                    f"{arriving} ether daddr {mac} ip daddr {address} accept",
                    *((six.to_router(mac, own6),) if own6 else ()),
                    # Where frames are looked at (guards.py), NAT has turned answers back by now.
                    f"{arriving} ether daddr {gateway} accept",
                    *([f"{arriving} ether daddr {mac} ip saddr {ROUTERS} accept"] if here else []),
                    f"{arriving} drop",
                ),
                "type filter hook input priority 0; policy accept;",
            ),
            Chain(
                "to_overlay",
                (
                    f"{leaving} ip saddr {address} ether saddr set {mac} accept",
                    *([f"{leaving} ip daddr {ROUTERS} ether saddr set {mac} accept"] if here else []),
                    *((six.to_overlay(mac, own6),) if own6 else ()),
                    f"{leaving} drop",
                ),
                "type filter hook output priority 0; policy accept;",
            ),
        ),
    )


def _routing_table(
    network: NetworkConfig,
    link: IPv4Address,
    routes: tuple[Route, ...],
    far: Far | None,
    egress: Egress | None,
) -> Table:
    open_routes = {_chain_name(route): route for route in routes if route.publication.addresses}
    dispatch = {
        f"{route.publication.protocol} . {route.link_port}": f"goto {name}"
        for name, route in open_routes.items()
    }
    open6 = {
        f"to6_{route.publication.protocol}_{route.link_port}": route
        for route in routes
        if network.ipv6 and route.publication.addresses6
    }
    dispatch6 = {
        f"{route.publication.protocol} . {route.link_port}": f"goto {name}" for name, route in open6.items()
    }
    link6 = link_address6(link) if network.ipv6 else None
    far6 = far.targets6 if far and not network.internal else None
    outside = () if network.internal else _outside(link, far, egress, link6)
    elements = {str(address): "" for address in sorted(far.targets)} if far else {}
    return Table(
        family="inet",
        name=ROUTER,
        sets=(
            Set("dispatch", "map", "type inet_proto . inet_service : verdict;", dispatch),
            *([Set("far", "set", "type ipv4_addr;", elements)] if far and not network.internal else []),
            *(six.router_sets(dispatch6, far6) if network.ipv6 else ()),
            Set("askers", "set", "type ipv4_addr; flags dynamic; timeout 10s; size 65536;", None),
        ),
        chains=(
            Chain("unbridged", (_UNBRIDGED,), "type filter hook prerouting priority raw; policy accept;"),
            Chain("input", _input(network), "type filter hook input priority filter; policy drop;"),
            Chain("forward", _forward(network), "type filter hook forward priority filter; policy drop;"),
            Chain("output", _OUTPUT, "type filter hook output priority filter; policy accept;"),
            *(Chain(name, (_balance(route.publication),)) for name, route in open_routes.items()),
            *(Chain(name, (six.balance(route.publication),)) for name, route in open6.items()),
            *outside,
        ),
    )


UNBRIDGED = Table(
    family="arp",
    name=ROUTER,
    sets=(),
    chains=(Chain("unbridged", (_UNBRIDGED,), "type filter hook input priority filter; policy accept;"),),
)
"""ARP in frames to the addresses that a bridge keeps for itself (01:80:c2:00:00:0x).

The kernel hands such frames past the bridge's rules to the port itself (net/bridge/br_input.c).  Each would
leave an entry in the table of neighbours, which all namespaces of the machine share; IP in them is dropped by
a chain of the routing table.
"""

_OUTPUT = (
    # While skep restarts nobody listens on port 53: silence makes resolvers ask again, a refusal gives up.
    f'oifname "{BRIDGE}" icmp type destination-unreachable icmp code 3 drop',
    f'oifname "{BRIDGE}" tcp sport 53 tcp flags & rst == rst drop',
)


def _input(network: NetworkConfig) -> tuple[str, ...]:
    question = f'iifname "{BRIDGE}" ip daddr {network.gateway}'
    too_fast = f"update @askers {{ ip saddr limit rate over {QUESTIONS} }} drop"
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
        f'iifname "{BRIDGE}" ip daddr {_gateways(network)} icmp type echo-request accept',
        *(six.to_self(network.ipv6.gateway) if network.ipv6 else ()),
        *(() if network.internal else refuse),
    )


def _gateways(network: NetworkConfig) -> str:
    known = [str(one.gateway) for one in network.subnets]
    return known[0] if len(known) == 1 else f"{{ {', '.join(known)} }}"


def _forward(network: NetworkConfig) -> tuple[str, ...]:
    # Frames between two ports come here where something is guarded (guards.py), and have been decided on.
    between = f'iifname "{BRIDGE}" oifname "{BRIDGE}" accept'
    if network.internal:
        return (between,)
    return (
        between,
        "ct state established,related accept",
        "ct state invalid drop",
        f"ip daddr {ROUTERS} drop",
        *((six.NO_ROUTERS, six.nowhere(network.ipv6.cidr)) if network.ipv6 else ()),
        f'iifname "{BRIDGE}" oifname "{UPLINK}" accept',
        f'iifname "{UPLINK}" oifname "{BRIDGE}" ct status dnat accept',
    )


def _outside(
    link: IPv4Address, far: Far | None, egress: Egress | None, link6: IPv6Address | None
) -> tuple[Chain, ...]:
    # A replica on another host would answer by its own host's router: so this one asks in its own name.
    back = [f'oifname "{BRIDGE}" ct status dnat ip daddr @far snat ip to {far.router}'] if far else []
    inward6 = (six.inward(link6),) if link6 else ()
    outward6 = six.outward(link6, far.router6 if far else None) if link6 else ()
    return (
        Chain(
            "arriving",
            (f'iifname "{UPLINK}" ip daddr {link} meta l4proto . th dport vmap @dispatch', *inward6),
            "type nat hook prerouting priority dstnat; policy accept;",
        ),
        Chain(
            "leaving",
            (f'oifname "{UPLINK}" snat ip to {link}', *_through(far), *back, *outward6),
            "type nat hook postrouting priority srcnat; policy accept;",
        ),
        *_leading(egress),
    )


def _through(far: Far | None) -> tuple[str, ...]:
    """To the host that has the egress address in the name of this router, so that answers come by here."""
    return (f'oifname "{BRIDGE}" meta mark {LEAVING} snat ip to {far.router}',) if far else ()


def _leading(egress: Egress | None) -> tuple[Chain, ...]:
    """What replicas begin with the outside; answers to what began there go back by where it came from.

    What leaves is what would take the default route: where frames are looked at, those between ports come
    here, too.
    """
    if egress is None or egress.here:
        return ()
    verdict = f"meta mark set {LEAVING}" if egress.via else "drop"
    leaves = f'meta nfproto ipv4 iifname "{BRIDGE}" ct direction original fib daddr oif "{UPLINK}"'
    hook = "type filter hook prerouting priority mangle; policy accept;"
    return (Chain("egress", (f"{leaves} {verdict}",), hook),)


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
