"""The table of the host: between its networks and the outside."""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Network

import msgspec

from skep.providers.local.network.nft import Chain, Elements, Set, Table
from skep.providers.local.network.rules import six

MOST_FLOWS = 20_000
"""Connections to the outside that one network may have at a time: all share the host's table of them."""

PACE = "1000/second burst 5000 packets"
"""Of new connections of one network: those that are closed are not counted as open, yet stay in the table
for a while (`links.CONNECTIONS`)."""


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
    ours, leads = f'"{uplinks}*"', bool(egress)
    return Table(
        family="inet",
        name=name,
        sets=(
            *_published(published, at),
            *([Set("underlay", "set", "type ipv4_addr;", tunnel.elements)] if tunnel else []),
            *(_egress(egress) if egress else ()),
            *(six.host_sets(dual.published, dual.at) if dual else ()),
        ),
        chains=(
            _early(ours, tunnel),
            *(_vxlan(ours, tunnel) if tunnel else ()),
            *_to_services(dual),
            _input(ours, leads, dual),
            _forward(ours, private, tunnel, dual),
            _leaving(ours, pool, leads, dual),
        ),
    )


def _published(published: Elements, at: Elements) -> tuple[Set, ...]:
    return (
        Set("published", "map", "type inet_proto . inet_service : ipv4_addr . inet_service;", published),
        Set(
            "published_at",
            "map",
            "type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service;",
            at,
        ),
        Set("flows", "set", "type ipv4_addr; flags dynamic; size 65536;", None),
        Set("paces", "set", "type ipv4_addr; flags dynamic; timeout 60s; size 65536;", None),
    )


def _egress(egress: Mapping[IPv4Address, IPv4Address]) -> tuple[Set, Set]:
    fixed = {str(link): str(address) for link, address in egress.items()}
    return (
        Set("egress", "map", "type ipv4_addr : ipv4_addr;", fixed),
        Set("egress_addresses", "set", "type ipv4_addr;", dict.fromkeys(fixed.values(), "")),
    )


def _early(ours: str, tunnel: Tunnel | None) -> Chain:
    return Chain(
        "early",
        (
            *([f"udp dport {tunnel.port} goto vxlan"] if tunnel else []),
            # Uplinks have route_localnet (for 127.0.0.1:published), so loopback is shut off here.
            f"iifname {ours} ip daddr 127.0.0.0/8 drop",
        ),
        "type filter hook prerouting priority raw; policy accept;",
    )


def _vxlan(ours: str, tunnel: Tunnel) -> tuple[Chain, Chain]:
    """Taken from peers only, and sent by this host only; connections are not tracked, there are none."""
    hook = "type filter hook output priority raw; policy accept;"
    return (
        Chain(
            "vxlan",
            (f"iifname {ours} drop", "ip saddr @underlay notrack accept", "fib daddr type local drop"),
        ),
        Chain("early_local", (f"udp dport {tunnel.port} notrack",), hook),
    )


def _to_services(dual: Six | None) -> tuple[Chain, Chain]:
    """From elsewhere and from the host itself; what is published at one address goes first."""
    rules = (
        "fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @published_at",
        "fib daddr type local dnat ip to meta l4proto . th dport map @published",
        *(six.TO_SERVICES if dual else ()),
    )
    return (
        Chain("arriving", rules, "type nat hook prerouting priority dstnat; policy accept;"),
        Chain("local", rules, "type nat hook output priority -100; policy accept;"),
    )


def _input(ours: str, leads: bool, dual: Six | None) -> Chain:
    return Chain(
        "input",
        (
            # For what comes back: what the host itself serves is not to be found there.
            *(["ip daddr @egress_addresses ct state new drop"] if leads else []),
            f"iifname != {ours} accept",
            "ct state established,related accept",
            *([six.host_input(ours)] if dual else []),
            "drop",
        ),
        "type filter hook input priority filter; policy accept;",
    )


def _forward(ours: str, private: tuple[IPv4Network, ...], tunnel: Tunnel | None, dual: Six | None) -> Chain:
    hidden = ", ".join(str(network) for network in private)
    return Chain(
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
    )


def _leaving(ours: str, pool: IPv4Network, leads: bool, dual: Six | None) -> Chain:
    return Chain(
        "leaving",
        (
            f"oifname {ours} ip saddr {{ 127.0.0.0/8, {pool} }} masquerade",
            *([f"oifname != {ours} snat ip to ip saddr map @egress"] if leads else []),
            f"oifname != {ours} ip saddr {pool} masquerade",
            *(six.masquerade(ours) if dual else ()),
        ),
        "type nat hook postrouting priority srcnat; policy accept;",
    )
