"""The table that leads connections for virtual IPs to replicas, in the sandbox of who begins them.  Pure.

A new connection gets a number by chance, and a virtual IP has a map of numbers to replicas: each has as many
as its weight says.  From then on connection tracking of that sandbox keeps it where it is.  Only such
connections are tracked, and what comes in never begins one: a reply is known by the replica it is from
(`led`), where the kernel makes no entry for what answers nothing (TCP, echoes), else by both ports (`talks`).
"""

import struct
from collections.abc import Iterable
from ipaddress import IPv4Address

from skep.model.errors import InvalidInput
from skep.model.host import NetworkConfig, NetworkVirtualIps, VirtualIp
from skep.providers.local.network.conntrack import Reply
from skep.providers.local.network.nft import Chain, Elements, Set, Table

TABLE = "skep_vips"
LED, TALKS = "led", "talks"
NUMBERS = 65_536
HIGHEST_WEIGHT = 256

MOST_FLOWS = 20_000
"""Connections for virtual IPs that a sandbox may have open at a time: they take the machine's memory."""

PACE = "10000/second burst 20000 packets"
"""Of new ones: those that are closed are not counted as open, yet stay in the table for a while."""

SETTINGS = (
    # What answers nothing must not leave an entry, and what comes late in a connection must still be known.
    ("netfilter/nf_conntrack_tcp_loose", "0"),
    ("netfilter/nf_conntrack_tcp_be_liberal", "1"),
    ("netfilter/nf_conntrack_tcp_timeout_time_wait", "10"),
    # A replica that is led to itself gets its answers from the virtual IP, on loopback.
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/lo/rp_filter", "0"),
)

_FLOW = "type ipv4_addr . inet_service . inet_service; flags dynamic; timeout 180s; size 65536;"
_TO = "ip daddr . udp dport . udp sport"
_FROM = "ip saddr . udp sport . udp dport"
_BEGUN = "ct direction original ct status dnat"


def check(told: NetworkVirtualIps, network: NetworkConfig) -> None:
    """Raises InvalidInput: an address is not one of the network's, is there twice, or a weight cannot be."""
    addresses = [one.address for one in told.virtual_ips]
    if len(set(addresses)) < len(addresses):
        raise InvalidInput(f"Two virtual IPs of network {network.name!r} are the same.")
    for one in told.virtual_ips:
        if not network.fits(one.address):
            raise InvalidInput(f"{one.address} is not free for a virtual IP of network {network.name!r}.")
        if any(not 0 <= backend.weight <= HIGHEST_WEIGHT for backend in one.backends):
            raise InvalidInput(f"A weight behind {one.address} is not between 0 and {HIGHEST_WEIGHT}.")


def table(virtual_ips: Iterable[VirtualIp]) -> Table:
    """The table of a sandbox that has these; where two networks of it share an address, the first counts."""
    known: dict[IPv4Address, VirtualIp] = {}
    for one in virtual_ips:
        known.setdefault(one.address, one)
    addresses = [str(address) for address in sorted(known)]
    return Table(
        family="inet",
        name=TABLE,
        sets=(
            Set("vips", "set", "type ipv4_addr;", dict.fromkeys(addresses, "")),
            Set(
                "ways",
                "map",
                "type ipv4_addr : verdict;",
                {one: f"goto {chain_name(one)}" for one in addresses},
            ),
            Set(LED, "set", "type ipv4_addr; flags dynamic; timeout 5d; size 65536;", None),
            Set(TALKS, "set", _FLOW, None),
            *(
                Set(
                    map_name(str(one.address)), "map", "type mark : ipv4_addr; flags interval;", _choices(one)
                )
                for _, one in sorted(known.items())
            ),
        ),
        chains=(
            *(Chain(chain_name(one), (f"dnat ip to meta mark map @{map_name(one)}",)) for one in addresses),
            Chain("replies", _REPLIES),
            Chain(
                "early_local",
                ("ip daddr @vips accept", 'oifname "lo" jump replies', "notrack"),
                "type filter hook output priority raw; policy accept;",
            ),
            Chain(
                "early",
                ("jump replies", "notrack"),
                "type filter hook prerouting priority raw; policy accept;",
            ),
            Chain(
                "choose",
                (
                    "meta l4proto != { tcp, udp, icmp } accept",
                    f"ip daddr @vips meta mark set numgen random mod {NUMBERS}",
                    "ip daddr vmap @ways",
                ),
                "type nat hook output priority -100; policy accept;",
            ),
            Chain("chosen", _CHOSEN, "type filter hook output priority filter; policy accept;"),
            Chain(
                "leaving",
                (
                    f"meta l4proto udp {_BEGUN} update @{TALKS} {{ {_TO} }} accept",
                    f"{_BEGUN} update @{LED} {{ ip daddr }}",
                ),
                "type filter hook postrouting priority 200; policy accept;",
            ),
        ),
    )


def map_name(address: str) -> str:
    """Of the map of a virtual IP: numbers to replicas."""
    return f"at_{int(IPv4Address(address)):08x}"


def chain_name(address: str) -> str:
    """Of the chain that asks it."""
    return f"to_{int(IPv4Address(address)):08x}"


_REPLIES = (
    f"{_FROM} @{TALKS} update @{TALKS} {{ {_FROM} }} accept",
    f"tcp flags & (syn | ack) != syn ip saddr @{LED} accept",
    f"icmp type echo-reply ip saddr @{LED} accept",
    "icmp type { destination-unreachable, time-exceeded, parameter-problem } accept",
)

_CHOSEN = (
    "ct state untracked accept",
    f"ct status dnat ct state new limit rate over {PACE} drop",
    f"ct status dnat ct state new ct count over {MOST_FLOWS} drop",
    # Whoever was led has another destination by now.
    "ip daddr @vips meta l4proto tcp reject with tcp reset",
    "ip daddr @vips reject",
)


def _choices(one: VirtualIp) -> Elements:
    """Numbers for every replica that has a weight, in the order of their addresses."""
    weights = {backend.address: backend.weight for backend in one.backends if backend.weight}
    total, before, found = sum(weights.values()), 0, {}
    for address in sorted(weights):
        first, before = before * NUMBERS // total, before + weights[address]
        last = before * NUMBERS // total - 1
        if first <= last:
            found[str(first) if first == last else f"{first}-{last}"] = str(address)
    return found


def talk(key: bytes, own: IPv4Address) -> Reply:
    """An element of `talks`, as the sandbox with this address has it: fields are filled up to 32 bits."""
    source, source_port, target_port = struct.unpack("!4sHxxHxx", key)
    return Reply(IPv4Address(source), source_port, own, target_port)


def gone(before: NetworkVirtualIps | None, after: NetworkVirtualIps | None) -> set[IPv4Address]:
    """Replicas that were behind one of the virtual IPs, and are behind none of them any more."""
    return _backends(before) - _backends(after)


def _backends(told: NetworkVirtualIps | None) -> set[IPv4Address]:
    return {backend.address for one in (told.virtual_ips if told else ()) for backend in one.backends}
