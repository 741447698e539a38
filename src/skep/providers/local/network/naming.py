"""How everything an instance makes on a host is called.

Names carry the instance, so that several instances share a machine, and the short id (10 characters) of what
they belong to.  Linux limits the name of an interface to 15 characters: interfaces carry four letters that
are a hash of the instance instead.
"""

import hashlib
import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import msgspec

from skep.model.errors import InvalidInput
from skep.model.ids import NetworkId, PortId, ReplicaId, short

NETNS = Path("/run/netns")
"""Where `ip netns` looks for namespaces."""

BRIDGE = "br0"
UPLINK = "up0"
OVERLAY = "vx0"
"""The VXLAN device in a router namespace."""

ROUTERS = IPv4Network("240.0.0.0/4")
"""Addresses of routers among themselves (RFC 1112, class E: nobody else has them).  A replica sees its own
router on another host under such a one, as the client of connections that were published there."""

LINKS6 = IPv6Network("fd73:6b65:7000::/96")
"""Where links between host and routers have their IPv6 addresses: the last 32 bits are those of IPv4."""
ROUTERS6 = IPv6Network("fd73:6b65:7001::/96")
"""As `ROUTERS`: the last 32 bits are the host's underlay address."""

_INSTANCE = re.compile(r"[a-z][a-z0-9-]{0,31}")


class Names(msgspec.Struct, frozen=True):
    """The names one instance uses; a pure function of `instance`."""

    instance: str

    def __post_init__(self) -> None:
        if not _INSTANCE.fullmatch(self.instance):
            raise InvalidInput(
                f"Instance {self.instance!r} is not 1 to 32 of a-z, 0-9 and '-', beginning with a letter."
            )

    @property
    def table(self) -> str:
        """The instance's nft table on the host."""
        return self.instance

    @property
    def uplinks(self) -> str:
        """What the host's ends of all uplinks of the instance begin with."""
        return _letters(self.instance, 4) + "u"

    def uplink(self, network: NetworkId) -> str:
        return self.uplinks + short(network)

    @property
    def routers(self) -> str:
        return f"{self.instance}-n-"

    @property
    def sandboxes(self) -> str:
        return f"{self.instance}-r-"

    def router(self, network: NetworkId) -> Path:
        return NETNS / (self.routers + short(network))

    def sandbox(self, replica: ReplicaId) -> Path:
        return NETNS / (self.sandboxes + short(replica))


def bridge_end(port: PortId) -> str:
    """The end of a port's veth pair at the bridge, in the router namespace."""
    return "p" + short(port)


def gateway_mac(network: NetworkId) -> str:
    """A locally administered unicast address that is the same on every host."""
    digest = hashlib.sha256(f"gateway {network}".encode()).digest()
    return ":".join(f"{octet:02x}" for octet in (0x02, *digest[:5]))


def router_address(underlay: IPv4Address) -> IPv4Address:
    """The address of a host's routers: the last 28 bits of the host's, its own in any private range."""
    return ROUTERS[int(underlay) % ROUTERS.num_addresses]


def router_address6(underlay: IPv4Address) -> IPv6Address:
    return ROUTERS6[int(underlay)]


def link_address6(address: IPv4Address) -> IPv6Address:
    """What the end of a link with this IPv4 address is called beside."""
    return LINKS6[int(address)]


def router_mac(network: NetworkId, underlay: IPv4Address) -> str:
    """The MAC of the network's router on one host, as the others know it."""
    digest = hashlib.sha256(f"router {network} {underlay}".encode()).digest()
    return ":".join(f"{octet:02x}" for octet in (0x06, *digest[:5]))


def link_addresses(pool: IPv4Network, index: int) -> tuple[IPv4Address, IPv4Address]:
    """The host's and the router's address of the /30 that belongs to a network's index.

    Raises:
        InvalidInput: the pool has no such link.
    """
    if not 0 < index < pool.num_addresses // 4:
        raise InvalidInput(f"Network index {index} does not fit into the link pool {pool}.")
    return pool[4 * index + 1], pool[4 * index + 2]


def _letters(text: str, length: int) -> str:
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return "".join(chr(ord("a") + number // 26**place % 26) for place in range(length))
