"""The overlay of a network: a VXLAN device in its router, and the ways to what is on other hosts.

The device is made in the host's namespace, where its packets leave, and lives in the router's, where it is a
port of the bridge.  It learns nothing and floods nothing: where a frame goes is what control said.
"""

import struct
import time
from collections.abc import Iterable
from ipaddress import IPv4Address
from pathlib import Path

import msgspec

from skep.model.errors import HostFailure, InvalidInput, Unsupported
from skep.model.host import NetworkConfig, NetworkPeers, PortConfig
from skep.providers.local.network import links, netlink
from skep.providers.local.network.naming import (
    BRIDGE,
    OVERLAY,
    gateway_mac,
    router_address,
    router_address6,
    router_mac,
)
from skep.providers.local.network.netlink import Way

HEADERS = 50
"""Bytes that VXLAN over IPv4 adds to a packet (RFC 7348): outer IP 20, UDP 8, VXLAN 8, inner Ethernet 14."""

_PATIENCE = 5.0
"""Seconds the kernel may take to let go of the device of a router that was deleted."""


class Underlay(msgspec.Struct, frozen=True):
    """Where this host meets the others.  `port` is VXLAN's; networks count from `first` in its numbers.

    Installations that share hosts need different ports.
    """

    address: IPv4Address
    port: int = 4789
    first: int = 0

    def number(self, network: NetworkConfig) -> int:
        return self.first + network.index


def check(peers: NetworkPeers, network: NetworkConfig, underlay: Underlay | None) -> None:
    """Raises InvalidInput: the peers cannot be; Unsupported: this host has no underlay."""
    if underlay is None:
        if peers.hosts or peers.ports or (peers.egress and peers.egress.via):
            raise Unsupported("This host has no underlay address: it cannot share a network with others.")
        return
    via = peers.egress.via if peers.egress else None
    if via is not None and via not in peers.hosts:
        raise InvalidInput(f"{via} is to lead outside, and is none of the hosts of the network.")
    if underlay.address in peers.hosts:
        raise InvalidInput(f"{underlay.address} is this host itself: it cannot be among its peers.")
    if strange := {port.underlay for port in peers.ports} - set(peers.hosts):
        raise InvalidInput(f"A port is on {min(strange)}, which is none of the hosts of the network.")
    ways = _all(peers, network)
    gateways = [one.gateway for one in (*network.subnets, *([network.ipv6] if network.ipv6 else ()))]
    for kind, taken in (
        ("MAC", [gateway_mac(network.id), *(way.mac for way in ways if way.address.version == 4)]),
        ("address", [*gateways, *(way.address for way in ways)]),
    ):
        if len(set(taken)) < len(taken):
            raise InvalidInput(
                f"Two peers of network {network.name!r}, or one and its gateway, share a {kind}."
            )


def ways(peers: NetworkPeers | None, network: NetworkConfig, here: Iterable[PortConfig]) -> list[Way]:
    """What is reached through the overlay: every peer but those that are plugged here by now."""
    if peers is None:
        return []
    local = list(here)
    macs = {port.mac.lower() for port in local}
    addresses = {address for port in local for address in (port.address, port.address6)}
    return [way for way in _all(peers, network) if way.mac not in macs and way.address not in addresses]


def _all(peers: NetworkPeers, network: NetworkConfig) -> list[Way]:
    hosts = [(host, router_mac(network.id, host)) for host in peers.hosts]
    found = [
        *(Way(mac, router_address(host), host) for host, mac in hosts),
        *(Way(port.mac.lower(), port.address, port.underlay) for port in peers.ports),
    ]
    if network.ipv6:
        found += [Way(mac, router_address6(host), host) for host, mac in hosts]
        found += [
            Way(port.mac.lower(), port.address6, port.underlay) for port in peers.ports if port.address6
        ]
    return found


# In the host's namespace.


def make(network: NetworkConfig, underlay: Underlay, router: Path, mtu: int) -> None:
    """Make the device, in the router.  One with the same number may still be going: then wait a little."""
    command = (
        f"link add name {OVERLAY} netns {router} address {router_mac(network.id, underlay.address)}"
        f" mtu {mtu} type vxlan id {underlay.number(network)} dstport {underlay.port}"
        f" local {underlay.address} nolearning"
    )
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            return links.ip(command)
        except HostFailure as error:
            if "exists" not in error.message or time.monotonic() > end:
                raise
            time.sleep(0.02)


# In the router namespace.


def join() -> None:
    """Put the device on the bridge, which learns nothing from it and sends it only what is known there."""
    links.ip(
        f"link set {OVERLAY} master {BRIDGE} up",
        f"link set {OVERLAY} type bridge_slave learning off flood off mcast_flood off bcast_flood off"
        " neigh_suppress on",
    )


_IFLA_ADDRESS, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO = 1, 4, 10, 18
_DATA, _SLAVE_DATA = 2, 5
_ID, _LOCAL, _LEARNING, _PORT = 1, 4, 7, 15
_PORT_FLAGS = {8: 0, 9: 0, 27: 0, 30: 0, 32: 1}
"""IFLA_BRPORT_*: learning, unicast, multicast and broadcast flooding, neighbour suppression."""


def is_there(network: NetworkConfig, underlay: Underlay, mtu: int) -> bool:
    """Whether the device is as `make` and `join` leave it, and up."""
    found = netlink.link(OVERLAY)
    info = netlink.attributes(found.get(_IFLA_LINKINFO, b""))
    device, port = netlink.attributes(info.get(_DATA, b"")), netlink.attributes(info.get(_SLAVE_DATA, b""))
    return (
        found.get(_IFLA_ADDRESS, b"").hex(":") == router_mac(network.id, underlay.address)
        and found.get(_IFLA_MTU) == struct.pack("=I", mtu)
        and device.get(_ID) == struct.pack("=I", underlay.number(network))
        and device.get(_LOCAL) == underlay.address.packed
        and device.get(_LEARNING) == b"\0"
        and device.get(_PORT) == struct.pack("!H", underlay.port)
        and all(port.get(flag) == bytes([value]) for flag, value in _PORT_FLAGS.items())
        and found.get(_IFLA_MASTER) == struct.pack("=I", links.number(BRIDGE))
        and links.is_running(OVERLAY)
    )
