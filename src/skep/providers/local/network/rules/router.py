"""The tables of a router namespace: who may send what, the way in and out."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

import msgspec

from skep.model.host import Egress, NetworkConfig, PortConfig, Publication
from skep.providers.local.network.naming import BRIDGE, OVERLAY, ROUTERS, UPLINK, bridge_end, link_address6
from skep.providers.local.network.nft import Chain, Set, Table
from skep.providers.local.network.rules import six
from skep.providers.local.network.rules.overlay import KNOWN_PEER
from skep.providers.local.network.rules.publications import Route

ROUTER = "skep"
"""The tables of a router namespace, which belongs to us alone."""


MEMBERS = "plugged"
"""Who is plugged in.  A set of another type needs another name: agents take over the tables of the release
before and of the one after, and the kernel changes the type of no set."""

LEAVING = "0xe9"
"""The mark of what leaves by the egress address of its network, which another host has."""


QUESTIONS = "500/second burst 1000 packets"
"""To the resolver, of one replica."""


_KNOWN_SENDER = "iif . ether saddr . ip saddr @plugged"
"""Interfaces by their numbers: looking up names takes longer (docs/decisions/0012)."""
_UNBRIDGED = f'iifname != {{ "lo", "{BRIDGE}", "{UPLINK}" }} drop'
"""What reaches the router in the name of a port of its bridge."""
_KNOWN_ARP_SENDER = "iif . ether saddr . arp saddr ip @plugged iif . arp saddr ether . arp saddr ip @plugged"


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
                    f'iifname "{OVERLAY}" meta mark {KNOWN_PEER} accept',
                    "ether type ip udp sport 67 udp dport 68 drop",
                    f"ether type ip {_KNOWN_SENDER} accept",
                    f"ether type arp {_KNOWN_ARP_SENDER} accept",
                    *((six.BRIDGE_RULE,) if network.ipv6 else ()),
                ),
                "type filter hook prerouting priority -300; policy drop;",
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
