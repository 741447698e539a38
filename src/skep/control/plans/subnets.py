"""The subnets of a network: which they are, which may join, where the next one is cut from.  Pure."""

import hashlib
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import msgspec

from skep.model.errors import Conflict, Exhausted, InvalidInput
from skep.model.host import LINK6_BITS
from skep.store.networks import NetworkRow
from skep.store.subnets import Subnet

SUBNET_BITS = 20
"""A subnet that nobody chose is a /20: 4,093 addresses for replicas."""
MOST = 16
"""Subnets of one network: every sandbox has a route to each."""
NOBODYS = tuple(
    ip_network(text)
    for text in (
        *("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3"),
        *("::/8", "fe80::/9", "ff00::/8", "fd73:6b65:7000::/47", "fd00:ec2::/32", "fd20:ce::/32"),
    )
)
"""This host, loopback, link-local, multicast and what is reserved (RFC 6890), where routers have addresses
(providers/local/network/naming.py), and where clouds answer questions about machines."""

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address


class Range(msgspec.Struct, frozen=True):
    """A subnet of a network.  `cursor` is the address given out last."""

    cidr: Network
    gateway: Address
    cursor: int

    @classmethod
    def fresh(cls, cidr: Network, gateway: Address) -> "Range":
        return cls(cidr, gateway, int(cidr.network_address) + 1)

    def __contains__(self, address: int) -> bool:
        return self.first <= address <= self.last

    @property
    def first(self) -> int:
        return int(self.cidr.network_address)

    @property
    def last(self) -> int:
        """Of those that may be given out: of IPv6 the first 65,536 (model/host.py)."""
        last = int(self.cidr.broadcast_address)
        return last if self.cidr.version == 4 else min(last, self.first + 2 ** (128 - LINK6_BITS) - 1)

    @property
    def own(self) -> frozenset[int]:
        """Addresses that belong to the network itself: its gateway's, its first and its last."""
        return frozenset({int(self.gateway), self.first, self.last})

    @property
    def room(self) -> int:
        """How many replicas may live in it."""
        return self.last - self.first + 1 - len(self.own)

    @property
    def text(self) -> str:
        """With the part that may be given out, where that is not all."""
        last = type(self.gateway)(self.last)
        whole = self.last == int(self.cidr.broadcast_address)
        return str(self.cidr) if whole else f"{self.cidr} (up to {last})"

    def kept(self) -> Subnet:
        """As the row has it."""
        return Subnet(cidr=str(self.cidr), gateway=str(self.gateway), cursor=self.cursor - self.first)


def ranges(row: NetworkRow) -> tuple[Range, ...]:
    """In the order in which they are used; one of them at most is of IPv6."""
    first = Range(IPv4Network(row.subnet), IPv4Address(row.gateway), row.cursor)
    return (first, *map(_range, row.more))


def of_family(row: NetworkRow, version: int) -> list[Range]:
    return [one for one in ranges(row) if one.cidr.version == version]


def moved(row: NetworkRow, known: Iterable[Range]) -> NetworkRow:
    """The row with these as they are now; it has them already."""
    now = {one.cidr: one for one in known}
    return with_ranges(row, [now.get(one.cidr, one) for one in ranges(row)])


def with_ranges(row: NetworkRow, known: Sequence[Range]) -> NetworkRow:
    """The row with these; the first is the one it has."""
    return msgspec.structs.replace(row, cursor=known[0].cursor, more=tuple(one.kept() for one in known[1:]))


def own_addresses(row: NetworkRow) -> set[int]:
    """Those of the network itself, in all of its subnets."""
    return set().union(*(one.own for one in ranges(row)))


def blocks(rows: Iterable[NetworkRow]) -> list[Network]:
    """The subnets of several networks."""
    return [one.cidr for row in rows for one in ranges(row)]


def join(row: NetworkRow, wanted: Iterable[tuple[str, str | None]], taken: Sequence[Network]) -> NetworkRow:
    """The network with more subnets; `wanted` has them with their gateways, if these were chosen.

    Raises:
        Conflict: one overlaps another.
        Exhausted: these are too many.
    """
    known = list(ranges(row))
    for cidr, gateway in wanted:
        subnet = chosen_subnet(cidr, row.name, [*taken, *(one.cidr for one in known)])
        known.append(Range.fresh(subnet, choose_gateway(gateway, row.name, subnet)))
    if sum(one.cidr.version == 6 for one in known) > 1:
        raise Conflict(f"Network {row.name!r} would have two IPv6 subnets; one is possible.")
    if len(known) > MOST:
        raise Exhausted(f"Network {row.name!r} would have {len(known)} subnets; {MOST} are possible.")
    return with_ranges(row, known)


def choose_ipv6(row: NetworkRow, taken: Sequence[Network]) -> str:
    """A unique local /64 (RFC 4193): 56 bits of the network's id, and others where these are taken."""
    for attempt in range(256):
        digest = hashlib.sha256(f"ipv6 {row.id} {attempt or ''}".encode()).digest()
        subnet = IPv6Network((b"\xfd" + digest[:7] + bytes(8), 64))
        if not any(subnet.overlaps(other) for other in (*taken, *NOBODYS)):
            return str(subnet)
    raise Exhausted(f"No IPv6 subnet is left for network {row.name!r}.")


def choose_subnet(
    wanted: str | None, name: str, taken: Sequence[Network], pool: IPv4Network, number: int
) -> IPv4Network:
    """The wanted subnet, or the first free /20 of the pool counted from the network's number."""
    if wanted is not None:
        found = chosen_subnet(wanted, name, taken)
        if not isinstance(found, IPv4Network):
            raise InvalidInput(f"Network {name!r}: {wanted!r} is not an IPv4 subnet; IPv6 comes beside one.")
        return found
    bits = max(SUBNET_BITS, pool.prefixlen)
    size = 1 << (32 - bits)
    count = pool.num_addresses // size
    for attempt in range(count):
        start = int(pool.network_address) + ((number + attempt) % count) * size
        subnet = IPv4Network((start, bits))
        if not any(subnet.overlaps(other) for other in taken):
            return subnet
    raise Exhausted(f"No subnet of {pool} is left for network {name!r}.")


def chosen_subnet(wanted: str, name: str, taken: Sequence[Network]) -> Network:
    """Raises InvalidInput, or Conflict: it overlaps one of those that are taken."""
    try:
        subnet = ip_network(wanted)
    except ValueError as error:
        raise InvalidInput(f"Network {name!r}: {wanted!r} is not a subnet ({error}).") from error
    largest, smallest = (8, 29) if subnet.version == 4 else (32, 120)
    if subnet.prefixlen > smallest:
        raise InvalidInput(f"Network {name!r}: subnet {subnet} is too small; take a /{smallest} or larger.")
    if subnet.prefixlen < largest:
        raise InvalidInput(f"Network {name!r}: subnet {subnet} is too large; take a /{largest} or smaller.")
    if any(subnet.overlaps(other) for other in NOBODYS):
        raise InvalidInput(f"Network {name!r}: addresses of {subnet} are those of no machine.")
    clash = next((other for other in taken if other.overlaps(subnet)), None)
    if clash is not None:
        raise Conflict(f"Network {name!r}: subnet {subnet} overlaps {clash}, which you use already.")
    return subnet


def choose_gateway(wanted: str | None, name: str, subnet: Network) -> Address:
    """The wanted gateway, or the first address of the subnet that a machine can have."""
    if wanted is None:
        return subnet[1]
    try:
        gateway = ip_address(wanted)
    except ValueError as error:
        raise InvalidInput(f"Network {name!r}: the gateway {wanted!r} is not an address.") from error
    if int(gateway) not in Range.fresh(subnet, gateway) or gateway in (
        subnet.network_address,
        subnet.broadcast_address,
    ):
        raise InvalidInput(f"Network {name!r}: the gateway {gateway} is no address of a machine in {subnet}.")
    return gateway


def _range(kept: Subnet) -> Range:
    cidr = ip_network(kept.cidr)
    return Range(cidr, ip_address(kept.gateway), int(cidr.network_address) + kept.cursor)
