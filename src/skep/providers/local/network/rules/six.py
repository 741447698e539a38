"""The IPv6 part of the packet rules: what networks of both families have beside IPv4's.  Pure text, no I/O.

IPv6 finds its neighbours by ICMPv6, which is IP and passes the same hooks, so what may be said there is said
here: a replica answers for its own address with its own MAC, and for nothing else; routers, prefixes and
redirects are announced by nobody (RFC 4861), and nobody serves DHCPv6.  A message of neighbour discovery has
no extension headers, which would hide it from rules (RFC 6980), and at most the one option that it needs.
"""

from collections.abc import Iterable
from ipaddress import IPv6Address, IPv6Network

from skep.model.host import PortConfig, Publication
from skep.providers.local.network.naming import (
    BRIDGE,
    LINKS6,
    OVERLAY,
    ROUTERS6,
    UPLINK,
    bridge_end,
)
from skep.providers.local.network.netlink import Way
from skep.providers.local.network.nft import Chain, Elements, Set

MEMBERS, ADVERTISED, LINKED = "members6", "advertised", "linked"
_KIND = {
    MEMBERS: "type iface_index . ether_addr . ipv6_addr;",
    ADVERTISED: "typeof iifname . ether saddr . @th,64,128;",
    LINKED: "typeof iifname . @th,208,48;",
}
_NDP = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }"
_HIDDEN = ("fe80::/10", "fd00:ec2::/32", "fd20:ce::/32", str(ROUTERS6), str(LINKS6))
"""Link-local; where clouds answer questions about the machine; our own links and routers."""


def elements(port: PortConfig) -> dict[str, str]:
    """What lets the port send, by set: nothing where it has no such address.

    Numbers as nft lists them: in decimal up to 64 bits.
    """
    if port.address6 is None:
        return {}
    end, mac = bridge_end(port.id), port.mac.lower()
    return {
        MEMBERS: f"{end} . {mac} . {port.address6}",
        ADVERTISED: f"{end} . {mac} . {int(port.address6):#x}",
        LINKED: f"{end} . {int(mac.replace(':', ''), 16)}",
    }


def bridge_sets(ports: Iterable[PortConfig]) -> tuple[Set, ...]:
    known = [elements(port) for port in ports]
    return tuple(
        Set(name, "set", kind, {one[name]: "" for one in known if name in one})
        for name, kind in _KIND.items()
    )


_WITH_MAC = f"iifname . @th,208,48 @{LINKED} accept"
"""Its one option is the MAC of the port."""
BRIDGE_RULE = "ether type ip6 goto from_ports6"
BRIDGE_CHAIN = Chain(
    "from_ports6",
    (
        f"iif . ether saddr . ip6 saddr != @{MEMBERS} drop",
        # Errors, echoes and neighbours.  Not: routers, redirects, groups, renumbering, names.
        "icmpv6 type != { 1, 2, 3, 4, 128, 129, 135, 136 } drop",
        "udp sport 547 udp dport 546 drop",
        f"ip6 nexthdr != ipv6-icmp {_NDP} drop",
        f"icmpv6 type nd-neighbor-advert iifname . ether saddr . @th,64,128 != @{ADVERTISED} drop",
        f"icmpv6 type nd-neighbor-advert ip6 length 32 @th,192,16 0x201 {_WITH_MAC}",
        f"icmpv6 type nd-neighbor-solicit ip6 length 32 @th,192,16 0x101 {_WITH_MAC}",
        f"{_NDP} ip6 length != 24 drop",
        "accept",
    ),
)


def overlay_sets(ways: Iterable[Way]) -> tuple[Set, Set]:
    known = [way for way in ways if isinstance(way.address, IPv6Address)]
    routers = {str(way.address): way.mac for way in known if way.address in ROUTERS6}
    return (
        Set(
            "peers6",
            "set",
            "type ether_addr . ipv6_addr;",
            {f"{way.mac} . {way.address}": "" for way in known},
        ),
        Set("routers6", "map", "type ipv6_addr : ether_addr;", routers),
    )


def to_routers(gateway: str) -> str:
    """Answers to a router of another host go there, and not into the router of this one."""
    return f"ether daddr {gateway} ether type ip6 ether daddr set ip6 daddr map @routers6"


def arriving(mark: str) -> tuple[str, str]:
    """Every host answers for neighbours from what it was told, so neighbour discovery stays on it."""
    return (
        "ether type ip6 icmpv6 type { 130, 131, 132, 133, 134, 135, 136, 137, 143 } drop",
        f"ether type ip6 ether saddr . ip6 saddr @peers6 meta mark set {mark} accept",
    )


def to_router(mac: str, address: IPv6Address) -> str:
    return f'iifname "{OVERLAY}" ether daddr {mac} ip6 daddr {address} accept'


def to_overlay(mac: str, address: IPv6Address) -> str:
    return f'oifname "{OVERLAY}" ip6 saddr {address} ether saddr set {mac} accept'


# The router.


def router_sets(dispatch: Elements, far: Iterable[IPv6Address] | None) -> tuple[Set, ...]:
    """`far` None: there is no way out, or no other host."""
    made = Set("dispatch6", "map", "type inet_proto . inet_service : verdict;", dispatch)
    if far is None:
        return (made,)
    return made, Set("far6", "set", "type ipv6_addr;", {str(address): "" for address in sorted(far)})


def to_self(gateway: IPv6Address) -> tuple[str, ...]:
    """What the router itself takes."""
    return (
        f"{_NDP} accept",
        f'iifname "{BRIDGE}" ip6 daddr {gateway} icmpv6 type echo-request accept',
        f'iifname "{UPLINK}" icmpv6 type echo-request accept',
    )


NO_ROUTERS = f"ip6 daddr {ROUTERS6} drop"


def nowhere(subnet: IPv6Network) -> str:
    """What is in the subnet and not on the link is nowhere, and not outside either."""
    return f'oifname "{UPLINK}" ip6 daddr {subnet} drop'


def inward(link: IPv6Address) -> str:
    return f'iifname "{UPLINK}" ip6 daddr {link} meta l4proto . th dport vmap @dispatch6'


def outward(link: IPv6Address, router: IPv6Address | None) -> tuple[str, ...]:
    """In the router's own name: to the world, and to targets that are on other hosts."""
    back = [f'oifname "{BRIDGE}" ct status dnat ip6 daddr @far6 snat ip6 to {router}'] if router else []
    return (f'oifname "{UPLINK}" snat ip6 to {link}', *back)


def balance(item: Publication) -> str:
    targets = [f"{address} . {item.target}" for address in item.addresses6]
    choices = ", ".join(f"{number} : {target}" for number, target in enumerate(targets))
    return f"meta l4proto {item.protocol} dnat ip6 to numgen random mod {len(targets)} map {{ {choices} }}"


# The host.


def host_sets(published: Elements, at: Elements) -> tuple[Set, ...]:
    value = "ipv6_addr . inet_service;"
    return (
        Set("published6", "map", f"type inet_proto . inet_service : {value}", published),
        Set("published_at6", "map", f"type ipv6_addr . inet_proto . inet_service : {value}", at),
        Set("flows6", "set", "type ipv6_addr; flags dynamic; size 65536;", None),
        Set("paces6", "set", "type ipv6_addr; flags dynamic; timeout 60s; size 65536;", None),
    )


TO_SERVICES = (
    "fib daddr type local dnat ip6 to ip6 daddr . meta l4proto . th dport map @published_at6",
    # What is sent to ::1 stays on the host, whatever rules say: refused at once, clients go on to 127.0.0.1.
    "fib daddr type local ip6 daddr != ::1 dnat ip6 to meta l4proto . th dport map @published6",
)


def host_input(ours: str) -> str:
    return f"iifname {ours} {_NDP} accept"


def bounded(ours: str, pace: str, most: int) -> tuple[str, str]:
    return (
        f"iifname {ours} ct state new update @paces6 {{ ip6 saddr limit rate over {pace} }} drop",
        f"iifname {ours} ct state new add @flows6 {{ ip6 saddr ct count over {most} }} drop",
    )


def hidden(ours: str, private: Iterable[IPv6Network]) -> str:
    ranges = ", ".join((*_HIDDEN, *map(str, private)))
    return f"iifname {ours} ip6 daddr {{ {ranges} }} drop"


def masquerade(ours: str) -> tuple[str, str]:
    """Whatever the host's own clients are called, the answer comes back to the host."""
    return (
        f"oifname {ours} ip6 saddr {LINKS6} masquerade",
        f"oifname != {ours} ip6 saddr {LINKS6} masquerade",
    )
