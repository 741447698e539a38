"""Addresses and routes of an interface: what it should have, the commands for it, what the kernel says.

One `ip -batch` sets them; rtnetlink(7) reads them, since ioctl knows one address of an interface only.
Functions that read act on the namespace of the calling thread.
"""

import socket
import struct
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from pathlib import Path

import msgspec

from skep.model.errors import HostFailure
from skep.model.host import NetworkConfig, PortConfig
from skep.providers.local.network import links, netlink
from skep.providers.local.network.naming import link_address6

Interface = IPv4Interface | IPv6Interface
Route = tuple[IPv4Network | IPv6Network, IPv4Address | IPv6Address | None]
"""Where to, and through which gateway; None: it is on the link itself."""

_GET_ADDRESS, _GET_ROUTE = 22, 26
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_MAIN, _BY_KERNEL = 254, 2
_ADDRESS, _ROUTE = struct.Struct("=BBBBI"), struct.Struct("=BBBBBBBBI")
_EVERYWHERE, _EVERYWHERE6 = IPv4Network("0.0.0.0/0"), IPv6Network("::/0")
_FAMILIES = ((socket.AF_INET, 4), (socket.AF_INET6, 16))
"""With the length of an address."""


class Addressing(msgspec.Struct, frozen=True):
    """What an interface has.  Routes that the kernel makes of the addresses are left out."""

    addresses: frozenset[Interface] = frozenset()
    routes: frozenset[Route] = frozenset()


def of_bridge(network: NetworkConfig) -> Addressing:
    """A gateway for every subnet."""
    found: list[Interface] = [IPv4Interface((one.gateway, one.cidr.prefixlen)) for one in network.subnets]
    if network.ipv6:
        found.append(IPv6Interface((network.ipv6.gateway, network.ipv6.link.prefixlen)))
    return Addressing(frozenset(found))


def of_uplink(host: IPv4Address, router: IPv4Address) -> Addressing:
    """What the router's end of its link has of IPv6."""
    own = IPv6Interface((link_address6(router), 126))
    return Addressing(frozenset({own}), frozenset({(_EVERYWHERE6, link_address6(host))}))


def of_port(port: PortConfig, network: NetworkConfig) -> Addressing:
    """Its address, the other subnets of the network on the link, and the way out."""
    home = network.home(port.address)
    if home is None:
        return Addressing()
    routes: list[Route] = [(one.cidr, None) for one in network.subnets if one != home]
    if port.default_route:
        routes.append((_EVERYWHERE, home.gateway))
    addresses: list[Interface] = [IPv4Interface((port.address, home.cidr.prefixlen))]
    if network.ipv6 and port.address6:
        addresses.append(IPv6Interface((port.address6, network.ipv6.link.prefixlen)))
        routes += [(_EVERYWHERE6, network.ipv6.gateway)] if port.default_route else []
    return Addressing(frozenset(addresses), frozenset(routes))


def allow_ipv6(nic: str, *, link_local: bool = True) -> None:
    """Let an interface have IPv6, which others do not; in sandboxes it has its fixed address only.

    Raises HostFailure: this kernel has none.
    """
    if not Path("/proc/sys/net/ipv6").exists():
        raise HostFailure("This host's kernel has no IPv6: networks that want it cannot be here.")
    links.sysctl(
        [
            (f"ipv6/conf/{nic}/accept_ra", "0"),
            (f"ipv6/conf/{nic}/accept_dad", "0"),
            (f"ipv6/conf/{nic}/addr_gen_mode", "0" if link_local else "1"),
            (f"ipv6/conf/{nic}/disable_ipv6", "0"),
        ]
    )


def addressed(wanted: Addressing, nic: str) -> list[str]:
    """The commands of ip(8) that give it its addresses; what is there already is success."""
    return [
        f"address replace {one} dev {nic}{' nodad' if one.version == 6 else ''}"
        for one in sorted(wanted.addresses, key=lambda one: (one.version, one.packed))
    ]


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
    for family, _ in _FAMILIES:
        for body in netlink.dump(_GET_ADDRESS, _ADDRESS.pack(family, 0, 0, 0, 0)):
            _, bits, _, _, at = _ADDRESS.unpack_from(body)
            if at == index:
                known = netlink.attributes(body[_ADDRESS.size :])
                found.add(ip_interface((known.get(_IFA_LOCAL) or known[_IFA_ADDRESS], bits)))
    return found


def _routes(index: int) -> set[Route]:
    found = set()
    for family, length in _FAMILIES:
        for body in netlink.dump(_GET_ROUTE, _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)):
            _, bits, _, _, table, origin, _, _, _ = _ROUTE.unpack_from(body)
            known = netlink.attributes(body[_ROUTE.size :])
            if table == _MAIN and origin != _BY_KERNEL and known.get(_RTA_OIF) == struct.pack("=I", index):
                gateway = known.get(_RTA_GATEWAY)
                target = ip_network((known.get(_RTA_DST, bytes(length)), bits))
                found.add((target, ip_address(gateway) if gateway else None))
    return found
