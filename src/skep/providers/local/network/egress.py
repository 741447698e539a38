"""Egress addresses: held by a host, and the way from the routers of other hosts to the one that holds it.

Rules (`rules/`) decide what takes that way; here are the addresses and routes that it needs.
"""

import socket
import struct
import subprocess
from collections.abc import Collection, Iterable
from ipaddress import IPv4Address

import msgspec

from skep.model.errors import HostFailure
from skep.model.host import Egress
from skep.providers.local.network import links
from skep.providers.local.network.naming import BRIDGE, ROUTERS, router_address
from skep.providers.local.network.rules.router import LEAVING

_TABLE = "233"
"""The routing table, of a router namespace, of what leaves by another host."""
_ARP, _REQUEST = 0x0806, 1
_EVERYBODY = b"\xff" * 6


class _Found(msgspec.Struct):
    """Of what `ip -json` lists; older versions list {} for what does not match."""

    ifname: str = ""
    dev: str = ""
    fwmark: str = ""
    table: str = ""
    gateway: str = ""


# In the host's namespace.


def holds(addresses: Iterable[IPv4Address]) -> bool:
    """Whether this host has all of them."""
    return all(_interface_with(address) for address in addresses)


def hold(wanted: Collection[IPv4Address], before: Collection[IPv4Address]) -> None:
    """Have the wanted addresses, and those of before that are not wanted no longer.

    Neighbours are told of each new one, so that what comes back comes here at once.
    """
    for address in set(before) - set(wanted):
        _release(address)
    for address in wanted:
        if not _interface_with(address):
            interface = _interface_to(address)
            links.ip(f"address add {address}/32 dev {interface}")
            _announce(address, interface)


def _release(address: IPv4Address) -> None:
    """Its interface may be going at the same time, and the address with it."""
    if interface := _interface_with(address):
        try:
            links.ip(f"address delete {address}/32 dev {interface}")
        except HostFailure:
            if links.there(interface):
                raise


def found(addresses: Iterable[IPv4Address]) -> list[IPv4Address]:
    """Those of them that this host has."""
    return [address for address in addresses if _interface_with(address)]


def _interface_with(address: IPv4Address) -> str:
    """The interface that has the address; "": none has."""
    return next((one.ifname for one in _ip("address", "show", "to", f"{address}/32") if one.ifname), "")


def _interface_to(address: IPv4Address) -> str:
    """The one whose network the address is in; else the one with the default route."""
    found = next((one.dev for one in _ip("route", "get", str(address)) if one.dev), "")
    if not found:
        raise HostFailure(f"This host has no route to {address}: it cannot be its egress address.")
    return found


def _announce(address: IPv4Address, interface: str) -> None:
    """By a gratuitous ARP request (RFC 5227, section 3): who had the address before is forgotten."""
    nic = links.nic(interface)
    if nic is None:
        return
    mac, own = bytes.fromhex(nic.mac.replace(":", "")), address.packed
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, _REQUEST) + mac + own + bytes(6) + own
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC) as channel:
        channel.bind((interface, 0))
        channel.send(_EVERYBODY + mac + struct.pack("!H", _ARP) + body)


# In the router namespace.


def lead(egress: Egress) -> None:
    """Make the ways that the rules need: to the router that leads outside, or back to those it leads for."""
    if egress.here:
        links.ip(f"route replace {ROUTERS} dev {BRIDGE} scope link")
    elif egress.via is not None:
        known = any(one.table == _TABLE for one in _ip("rule", "show"))
        rule = [] if known else [f"rule add fwmark {LEAVING} lookup {_TABLE}"]
        way = f"route replace default via {router_address(egress.via)} dev {BRIDGE} onlink table {_TABLE}"
        links.ip(*rule, way)


def leads(egress: Egress) -> bool:
    """Whether the ways are as `lead` makes them."""
    if egress.here:
        return bool(_ip("route", "show", str(ROUTERS)))
    if egress.via is None:
        return True
    ways = _ip("route", "show", "table", _TABLE)
    return any(one.table == _TABLE for one in _ip("rule", "show")) and any(
        one.gateway == str(router_address(egress.via)) for one in ways
    )


def _ip(*arguments: str) -> list[_Found]:
    done = subprocess.run(["ip", "-json", *arguments], capture_output=True, text=True, timeout=60)
    if done.returncode:
        return []
    return msgspec.json.decode(done.stdout or "[]", type=list[_Found])
