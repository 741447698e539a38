"""The table of a router namespace that decides what comes through the overlay and what leaves by it."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

import msgspec

from skep.model.host import Egress, NetworkConfig
from skep.providers.local.network.naming import (
    OVERLAY,
    ROUTERS,
    gateway_mac,
    router_address,
    router_address6,
    router_mac,
)
from skep.providers.local.network.netlink import Way
from skep.providers.local.network.nft import Chain, Set, Table
from skep.providers.local.network.rules import six

OVERLAY_TABLE = "skep_overlay"

KNOWN_PEER = "0x5e9"
"""The mark of a frame that came through the overlay from a known peer."""

_ARRIVING, _LEAVING = f'iifname "{OVERLAY}"', f'oifname "{OVERLAY}"'


class _Router(msgspec.Struct, frozen=True):
    """The router of the network on this host, as other hosts see it."""

    gateway: str
    mac: str
    address: IPv4Address
    address6: IPv6Address | None
    leads: bool
    """It has the egress address of the network."""
    led_by: str
    """The MAC of the router on the host that has it; "": there is none, or it is this one."""


def overlay_table(
    network: NetworkConfig, own: IPv4Address, ways: Iterable[Way], egress: Egress | None = None
) -> Table:
    """What may come through the overlay and what may leave; `own` is this host's underlay address.

    A table of its own, since it may hold ten thousand elements and changes at other times than the rest.
    Without it nothing comes in: it marks what the bridge's table lets pass.
    """
    router = _Router(
        gateway_mac(network.id),
        router_mac(network.id, own),
        router_address(own),
        router_address6(own) if network.ipv6 else None,
        egress.here if egress else False,
        router_mac(network.id, egress.via) if egress and egress.via else "",
    )
    return Table(
        family="bridge",
        name=OVERLAY_TABLE,
        sets=_sets(list(ways), router),
        chains=(_from_overlay(router), _arriving(router), _to_router(router), _to_overlay(router)),
    )


def _sets(ways: list[Way], router: _Router) -> tuple[Set, ...]:
    first = [way for way in ways if way.address.version == 4]
    routers = {str(way.address): way.mac for way in first if way.address in ROUTERS}
    return (
        Set(
            "peers",
            "set",
            "type ether_addr . ipv4_addr;",
            {f"{way.mac} . {way.address}": "" for way in first},
        ),
        Set("routers", "map", "type ipv4_addr : ether_addr;", routers),
        *(six.overlay_sets(ways) if router.address6 else ()),
    )


def _from_overlay(router: _Router) -> Chain:
    """Few chains: each costs every frame on its way as much as three rules."""
    return Chain(
        "from_overlay",
        (
            f"{_ARRIVING} goto arriving",
            # Answers to a router of another host go there, and not into the router of this one.
            f"ether daddr {router.gateway} ether type ip ether daddr set ip daddr map @routers",
            *((six.to_routers(router.gateway),) if router.address6 else ()),
        ),
        "type filter hook prerouting priority -310; policy accept;",
    )


def _arriving(router: _Router) -> Chain:
    known_peer = f"meta mark set {KNOWN_PEER} accept"
    to_us = f"ether daddr {router.mac} ether type ip ip daddr {router.address}"
    return Chain(
        "arriving",
        (
            f"ether daddr {router.gateway} drop",
            # Answers from outside, by the host that has the network's egress address.
            *([f"ether saddr {router.led_by} {to_us} {known_peer}"] if router.led_by else []),
            # Every host answers ARP from what it was told, so no broadcast has any business here.
            "ether daddr & 01:00:00:00:00:00 != 00:00:00:00:00:00 drop",
            f"ether type ip ether saddr . ip saddr @peers {known_peer}",
            *(six.arriving(KNOWN_PEER) if router.address6 else ()),
            "drop",
        ),
    )


def _to_router(router: _Router) -> Chain:
    return Chain(
        "to_router",
        (
            f"{_ARRIVING} ether daddr {router.mac} ip daddr {router.address} accept",
            *((six.to_router(router.mac, router.address6),) if router.address6 else ()),
            # Where frames are looked at (guards.py), NAT has turned answers back by now.
            f"{_ARRIVING} ether daddr {router.gateway} accept",
            *([f"{_ARRIVING} ether daddr {router.mac} ip saddr {ROUTERS} accept"] if router.leads else []),
            f"{_ARRIVING} drop",
        ),
        "type filter hook input priority 0; policy accept;",
    )


def _to_overlay(router: _Router) -> Chain:
    return Chain(
        "to_overlay",
        (
            f"{_LEAVING} ip saddr {router.address} ether saddr set {router.mac} accept",
            *([f"{_LEAVING} ip daddr {ROUTERS} ether saddr set {router.mac} accept"] if router.leads else []),
            *((six.to_overlay(router.mac, router.address6),) if router.address6 else ()),
            f"{_LEAVING} drop",
        ),
        "type filter hook output priority 0; policy accept;",
    )
