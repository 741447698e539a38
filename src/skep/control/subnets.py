"""The subnets of a network: which they are, which may join, where the next one is cut from.  Pure."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network

import msgspec

from skep.model.errors import Conflict, Exhausted, InvalidInput
from skep.store.networks import NetworkRow
from skep.store.subnets import Subnet

SUBNET_BITS = 20
"""A subnet that nobody chose is a /20: 4,093 addresses for replicas."""
MOST = 16
"""Subnets of one network: every sandbox has a route to each."""
NOBODYS = tuple(IPv4Network(text) for text in ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3"))
"""This host, loopback, multicast and what is reserved (RFC 6890); routers have addresses of the last."""


class Range(msgspec.Struct, frozen=True):
    """A subnet of a network.  `cursor` is the address given out last."""

    cidr: IPv4Network
    gateway: IPv4Address
    cursor: int

    @classmethod
    def fresh(cls, cidr: IPv4Network, gateway: IPv4Address) -> "Range":
        return cls(cidr, gateway, int(cidr.network_address) + 1)

    def __contains__(self, address: int) -> bool:
        return self.first <= address <= self.last

    @property
    def first(self) -> int:
        return int(self.cidr.network_address)

    @property
    def last(self) -> int:
        return int(self.cidr.broadcast_address)

    @property
    def own(self) -> frozenset[int]:
        """Addresses that belong to the network itself: its gateway's, its first and its last."""
        return frozenset({int(self.gateway), self.first, self.last})

    @property
    def room(self) -> int:
        """How many replicas may live in it."""
        return self.cidr.num_addresses - len(self.own)

    def kept(self) -> Subnet:
        """As the row has it."""
        return Subnet(cidr=str(self.cidr), gateway=str(self.gateway), cursor=self.cursor - self.first)


def ranges(row: NetworkRow) -> tuple[Range, ...]:
    """In the order in which they are used."""
    first = Range(IPv4Network(row.subnet), IPv4Address(row.gateway), row.cursor)
    return (first, *map(_range, row.more))


def with_ranges(row: NetworkRow, known: Sequence[Range]) -> NetworkRow:
    """The row with these; the first is the one it has."""
    return msgspec.structs.replace(row, cursor=known[0].cursor, more=tuple(one.kept() for one in known[1:]))


def own_addresses(row: NetworkRow) -> set[int]:
    """Those of the network itself, in all of its subnets."""
    return set().union(*(one.own for one in ranges(row)))


def blocks(rows: Iterable[NetworkRow]) -> list[IPv4Network]:
    """The subnets of several networks."""
    return [one.cidr for row in rows for one in ranges(row)]


def join(row: NetworkRow, wanted: Iterable[tuple[str, str | None]], taken: list[IPv4Network]) -> NetworkRow:
    """The network with more subnets; `wanted` has them with their gateways, if these were chosen.

    Raises:
        Conflict: one overlaps another.
        Exhausted: these are too many.
    """
    known = list(ranges(row))
    for cidr, gateway in wanted:
        subnet = chosen_subnet(cidr, row.name, [*taken, *(one.cidr for one in known)])
        known.append(Range.fresh(subnet, choose_gateway(gateway, row.name, subnet)))
    if len(known) > MOST:
        raise Exhausted(f"Network {row.name!r} would have {len(known)} subnets; {MOST} are possible.")
    return with_ranges(row, known)


def choose_subnet(
    wanted: str | None, name: str, taken: list[IPv4Network], pool: IPv4Network, number: int
) -> IPv4Network:
    """The wanted subnet, or the first free /20 of the pool counted from the network's number."""
    if wanted is not None:
        return chosen_subnet(wanted, name, taken)
    bits = max(SUBNET_BITS, pool.prefixlen)
    size = 1 << (32 - bits)
    count = pool.num_addresses // size
    for attempt in range(count):
        start = int(pool.network_address) + ((number + attempt) % count) * size
        subnet = IPv4Network((start, bits))
        if not any(subnet.overlaps(other) for other in taken):
            return subnet
    raise Exhausted(f"No subnet of {pool} is left for network {name!r}.")


def chosen_subnet(wanted: str, name: str, taken: list[IPv4Network]) -> IPv4Network:
    """Raises InvalidInput, or Conflict: it overlaps one of those that are taken."""
    try:
        subnet = IPv4Network(wanted)
    except ValueError as error:
        raise InvalidInput(f"Network {name!r}: {wanted!r} is not an IPv4 subnet ({error}).") from error
    if subnet.num_addresses < 8:
        raise InvalidInput(f"Network {name!r}: subnet {subnet} is too small; take a /29 or larger.")
    if subnet.prefixlen < 8:
        raise InvalidInput(f"Network {name!r}: subnet {subnet} is too large; take a /8 or smaller.")
    if any(subnet.overlaps(other) for other in NOBODYS):
        raise InvalidInput(f"Network {name!r}: addresses of {subnet} are those of no machine.")
    clash = next((other for other in taken if other.overlaps(subnet)), None)
    if clash is not None:
        raise Conflict(f"Network {name!r}: subnet {subnet} overlaps {clash}, which you use already.")
    return subnet


def choose_gateway(wanted: str | None, name: str, subnet: IPv4Network) -> IPv4Address:
    """The wanted gateway, or the first address of the subnet that a machine can have."""
    if wanted is None:
        return subnet[1]
    try:
        gateway = IPv4Address(wanted)
    except ValueError as error:
        raise InvalidInput(f"Network {name!r}: the gateway {wanted!r} is not an IPv4 address.") from error
    if gateway not in subnet or gateway in (subnet.network_address, subnet.broadcast_address):
        raise InvalidInput(f"Network {name!r}: the gateway {gateway} is no address of a machine in {subnet}.")
    return gateway


def _range(kept: Subnet) -> Range:
    cidr = IPv4Network(kept.cidr)
    return Range(cidr, IPv4Address(kept.gateway), int(cidr.network_address) + kept.cursor)
