"""Address management: subnets for networks, an address and a MAC for every port.

Runs inside the transaction of `release.prepare`, so an address is promised once.
"""

import hashlib
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.plans import NewNetwork, NewPort
from skep.model.errors import Conflict, Exhausted, InvalidInput
from skep.model.ids import AppId, NetworkId, PortId, ReplicaId, TenantId
from skep.store import networks, reservations, shares
from skep.store.networks import NetworkRow, PortRow
from skep.store.reservations import ReservationRow

SUBNET_BITS = 20
"""A subnet that nobody chose is a /20: 4,093 addresses for replicas."""
HIGHEST_NUMBER = 16_383
NOBODYS = tuple(IPv4Network(text) for text in ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3"))
"""This host, loopback, multicast and what is reserved (RFC 6890); routers have addresses of the last."""


class Addresses:
    """Hands out subnets and addresses of one tenant within one transaction."""

    def __init__(self, tx: AsyncConnection, tenant: TenantId, pool: IPv4Network, now: float) -> None:
        self.tx = tx
        self.tenant = tenant
        self.pool = pool
        self.now = now

    async def add_networks(self, wanted: Iterable[NewNetwork], app: AppId | None) -> None:
        """Make the rows of new networks; `app` is whose they are, where they are an app's own.

        Raises:
            Conflict: the wanted subnet overlaps another network of the tenant.
            Exhausted: no subnet or network number is left.
        """
        present = await networks.reachable(self.tx, self.tenant)
        there = {name: row.id for name, row in present.items()}
        taken = [IPv4Network(row.subnet) for row in present.values() if row.tenant_id == self.tenant]
        numbers = await networks.numbers(self.tx)
        rows = []
        for network in wanted:
            if there.get(network.name) == network.id:
                continue  # the one that all apps share was made for another one meanwhile
            if network.name in there:
                raise Conflict(f"Network {network.name!r} was made meanwhile: apply again.")
            number = _free_number(numbers)
            subnet = choose_subnet(network.subnet, network.name, taken, self.pool, number)
            gateway = choose_gateway(network.gateway, network.name, subnet)
            numbers.add(number)
            taken.append(subnet)
            rows.append(
                NetworkRow(
                    id=network.id,
                    tenant_id=self.tenant,
                    app_id=app if network.own else None,
                    name=network.name,
                    subnet=str(subnet),
                    gateway=str(gateway),
                    number=number,
                    cursor=int(subnet.network_address) + 1,
                    internal=network.internal,
                    created=self.now,
                )
            )
        await networks.insert(self.tx, rows)

    async def claim(self, wanted: Iterable[tuple[ReplicaId, NewPort]]) -> None:
        """Give every port that has none its address; ports that are there keep theirs and get their names.

        Raises:
            Exhausted: a subnet is full.  Conflict: a wanted address is taken.
        """
        by_network: dict[NetworkId, list[tuple[ReplicaId, NewPort]]] = {}
        for replica, port in wanted:
            by_network.setdefault(port.network, []).append((replica, port))
        for network, ports in by_network.items():
            await self._claim_in(network, ports)

    async def _claim_in(self, network: NetworkId, wanted: list[tuple[ReplicaId, NewPort]]) -> None:
        row = await networks.get(self.tx, network)
        if row is None:
            raise Conflict("A network of the app was removed meanwhile: apply again.")
        present = {port.id: port for port in await networks.ports_of(self.tx, network=network)}
        for _, port in wanted:
            if port.id in present:
                await networks.set_names(self.tx, port.id, port.names)
        new = [(replica, port) for replica, port in wanted if port.id not in present]
        guest = row.tenant_id != self.tenant
        if new and guest and not await shares.accepted(self.tx, network, self.tenant):
            raise Conflict("A network of another tenant is not shared with you any more: apply again.")
        reserved = [Reserved.of(kept) for kept in await reservations.of_network(self.tx, network)]
        _check_macs(row, [port.mac for _, port in new], {port.mac for port in present.values()}, guest)
        used = {port.address for port in present.values()}
        chosen, cursor = choose_addresses(row, [port.address for _, port in new], used, reserved, guest=guest)
        await networks.insert_ports(
            self.tx,
            [
                PortRow(
                    id=port.id,
                    tenant_id=self.tenant,
                    network_id=network,
                    replica_id=replica,
                    address=address,
                    mac=port.mac or mac_address(port.id),
                    names=port.names,
                    position=port.position,
                )
                for (replica, port), address in zip(new, chosen, strict=True)
            ],
        )
        await networks.set_cursor(self.tx, network, cursor)


class Reserved(msgspec.Struct, frozen=True):
    """A range that is given to nobody who does not ask for it, with both its ends."""

    first: int
    last: int
    purpose: str = ""

    @classmethod
    def of(cls, row: ReservationRow) -> "Reserved":
        return cls(row.first, row.last, row.purpose)

    def __contains__(self, address: int) -> bool:
        return self.first <= address <= self.last

    def __str__(self) -> str:
        ends = (self.first,) if self.first == self.last else (self.first, self.last)
        text = "-".join(str(IPv4Address(end)) for end in ends)
        return f"{text} for {self.purpose}" if self.purpose else text


def choose_subnet(
    wanted: str | None, name: str, taken: list[IPv4Network], pool: IPv4Network, number: int
) -> IPv4Network:
    """The wanted subnet, or the first free /20 of the pool counted from the network's number."""
    if wanted is not None:
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
    bits = max(SUBNET_BITS, pool.prefixlen)
    size = 1 << (32 - bits)
    count = pool.num_addresses // size
    for attempt in range(count):
        start = int(pool.network_address) + ((number + attempt) % count) * size
        subnet = IPv4Network((start, bits))
        if not any(subnet.overlaps(other) for other in taken):
            return subnet
    raise Exhausted(f"No subnet of {pool} is left for network {name!r}.")


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


def choose_addresses(
    network: NetworkRow,
    wanted: list[str | None],
    used: set[int],
    reserved: Sequence[Reserved] = (),
    *,
    guest: bool = False,
) -> tuple[list[int], int]:
    """An address for each entry (None: any that is not reserved), and the network's new cursor.

    Free addresses are given out in turn, so that one that was just freed is not reused at once.  What is
    reserved is for the owner's replicas that ask for it: a `guest` does not get it, nor hears what it is for.
    """
    subnet = IPv4Network(network.subnet)
    own = own_addresses(network)
    used = used | own
    fixed = {}
    for index, text in enumerate(wanted):
        if text is not None:
            fixed[index] = _fixed_address(text, subnet, network.name, used, reserved if guest else ())
            used.add(fixed[index])
    cursor, result = network.cursor, []
    for index in range(len(wanted)):
        if index in fixed:
            result.append(fixed[index])
            continue
        address = _next_free(cursor, subnet, used, reserved)
        if address is None:
            raise Exhausted(_full(network, len(used - own), reserved, guest))
        used.add(address)
        cursor = address
        result.append(address)
    return result, cursor


def own_addresses(network: NetworkRow) -> set[int]:
    """Those that belong to the network itself: its gateway's, its first and its last."""
    subnet = IPv4Network(network.subnet)
    ends = (int(subnet.network_address), int(subnet.broadcast_address))
    return {int(IPv4Address(network.gateway)), *ends}


def count_reserved(network: NetworkRow, used: set[int], reserved: Iterable[Reserved]) -> int:
    """How many free addresses are kept back."""
    taken = used | own_addresses(network)
    return sum(
        kept.last - kept.first + 1 - sum(1 for address in taken if address in kept) for kept in reserved
    )


def _next_free(cursor: int, subnet: IPv4Network, used: set[int], reserved: Sequence[Reserved]) -> int | None:
    """The first that may be given out after the cursor, then from the beginning."""
    first, last = int(subnet.network_address), int(subnet.broadcast_address)
    for candidate, end in ((cursor + 1, last), (first, min(cursor, last))):
        while candidate <= end:
            kept = next((one for one in reserved if candidate in one), None)
            if kept is None and candidate not in used:
                return candidate
            candidate = kept.last + 1 if kept is not None else candidate + 1
    return None


def _full(network: NetworkRow, used: int, reserved: Sequence[Reserved], guest: bool) -> str:
    full = f"Subnet {network.subnet} of network {network.name!r} is full:"
    if guest:
        return f"{full} ask its owner for room, or use a network of your own."
    if not reserved:
        return (
            f"{full} all {used} addresses are in use. Remove replicas, or use a network with a larger subnet."
        )
    ranges = ", ".join(map(str, reserved[:5])) + (", …" if len(reserved) > 5 else "")
    return (
        f"{full} {used} addresses are in use, and the rest is reserved ({ranges}). Remove replicas, give up "
        "a reservation with 'skep net unreserve', or use a network with a larger subnet."
    )


def mac_address(port: PortId) -> str:
    """A locally administered unicast MAC (IEEE 802: second bit of the first byte), derived from the id."""
    tail = hashlib.sha256(port.encode()).digest()[:5]
    return ":".join(f"{byte:02x}" for byte in bytes([0x02]) + tail)


def _fixed_address(
    text: str, subnet: IPv4Network, name: str, used: set[int], reserved: Sequence[Reserved]
) -> int:
    try:
        address = IPv4Address(text)
    except ValueError as error:
        raise InvalidInput(f"{text!r} is not an IPv4 address.") from error
    if address not in subnet:
        raise InvalidInput(f"Address {address} is not in subnet {subnet} of network {name!r}.")
    if int(address) in used:
        raise Conflict(f"Address {address} of network {name!r} is in use.")
    if any(int(address) in kept for kept in reserved):
        raise Conflict(f"Address {address} of network {name!r} is reserved by its owner.")
    return int(address)


def _check_macs(network: NetworkRow, wanted: Iterable[str | None], used: set[str], guest: bool) -> None:
    """Two NICs with one MAC would take each other's frames, and a guest could take those of its host."""
    for mac in filter(None, wanted):
        if guest:
            raise Conflict(f"Network {network.name!r} is another tenant's: leave the MAC {mac} out.")
        if mac in used:
            raise Conflict(f"MAC {mac} is in use on network {network.name!r}.")
        used = used | {mac}


def _free_number(numbers: set[int]) -> int:
    number = next((n for n in range(1, HIGHEST_NUMBER + 1) if n not in numbers), None)
    if number is None:
        raise Exhausted(f"All {HIGHEST_NUMBER} networks of this installation are in use.")
    return number
