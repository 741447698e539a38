"""Addresses and routes of an interface: what it should have, the commands for it, what the kernel says.

One `ip -batch` sets them; rtnetlink(7) reads them, since ioctl knows one address of an interface only.
Functions that read act on the namespace of the calling thread.
"""

import socket
import struct
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import msgspec

from skep.model.host import NetworkConfig, PortConfig
from skep.providers.local.network import links, netlink

Interface = IPv4Interface
Route = tuple[IPv4Network, IPv4Address | None]
"""Where to, and through which gateway; None: it is on the link itself."""

_GET_ADDRESS, _GET_ROUTE = 22, 26
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_MAIN, _BY_KERNEL = 254, 2
_ADDRESS, _ROUTE = struct.Struct("=BBBBI"), struct.Struct("=BBBBBBBBI")
_EVERYWHERE = IPv4Network("0.0.0.0/0")


class Addressing(msgspec.Struct, frozen=True):
    """What an interface has.  Routes that the kernel makes of the addresses are left out."""

    addresses: frozenset[Interface] = frozenset()
    routes: frozenset[Route] = frozenset()


def of_bridge(network: NetworkConfig) -> Addressing:
    """A gateway for every subnet."""
    return Addressing(frozenset(IPv4Interface((one.gateway, one.cidr.prefixlen)) for one in network.subnets))


def of_port(port: PortConfig, network: NetworkConfig) -> Addressing:
    """Its address, the other subnets of the network on the link, and the way out."""
    home = network.home(port.address)
    if home is None:
        return Addressing()
    routes: list[Route] = [(one.cidr, None) for one in network.subnets if one != home]
    if port.default_route:
        routes.append((_EVERYWHERE, home.gateway))
    return Addressing(frozenset({IPv4Interface((port.address, home.cidr.prefixlen))}), frozenset(routes))


def addressed(wanted: Addressing, nic: str) -> list[str]:
    """The commands of ip(8) that give it its addresses; what is there already is success."""
    return [f"address replace {one} dev {nic}" for one in sorted(wanted.addresses)]


def routed(wanted: Addressing, nic: str) -> list[str]:
    """The commands that make its routes, once it is up; those on the link before those that need them."""
    on_link = [f"route replace {cidr} dev {nic}" for cidr, gateway in wanted.routes if gateway is None]
    onwards = [f"route replace {cidr} via {gateway} dev {nic}" for cidr, gateway in wanted.routes if gateway]
    return [*sorted(on_link), *sorted(onwards)]


def has(wanted: Addressing, nic: str) -> bool:
    """Whether the interface has at least these."""
    index = links.number(nic)
    return wanted.addresses <= _addresses(index) and wanted.routes <= _routes(index)


def _addresses(index: int) -> set[Interface]:
    found = set()
    for body in netlink.dump(_GET_ADDRESS, _ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0)):
        _, bits, _, _, at = _ADDRESS.unpack_from(body)
        if at == index:
            known = netlink.attributes(body[_ADDRESS.size :])
            found.add(IPv4Interface((known.get(_IFA_LOCAL) or known[_IFA_ADDRESS], bits)))
    return found


def _routes(index: int) -> set[Route]:
    found = set()
    for body in netlink.dump(_GET_ROUTE, _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)):
        _, bits, _, _, table, origin, _, _, _ = _ROUTE.unpack_from(body)
        known = netlink.attributes(body[_ROUTE.size :])
        if table == _MAIN and origin != _BY_KERNEL and known.get(_RTA_OIF) == struct.pack("=I", index):
            gateway = known.get(_RTA_GATEWAY)
            target = IPv4Network((known.get(_RTA_DST, bytes(4)), bits))
            found.add((target, IPv4Address(gateway) if gateway else None))
    return found
