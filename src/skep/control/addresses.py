"""Address management: subnets for networks, an address and a MAC for every port.

Runs inside the transaction of `release.prepare`, so an address is promised once.
"""

import hashlib
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.plans import NewNetwork, NewPort
from skep.model.errors import Conflict, Exhausted, InvalidInput
from skep.model.ids import AppId, NetworkId, PortId, ReplicaId, TenantId
from skep.store import networks
from skep.store.networks import NetworkRow, PortRow

SUBNET_BITS = 20
"""A subnet that nobody chose is a /20: 4,093 addresses for replicas."""
HIGHEST_NUMBER = 16_383


class Addresses:
    """Hands out subnets and addresses of one tenant within one transaction."""

    def __init__(self, tx: AsyncConnection, tenant: TenantId, pool: IPv4Network, now: float) -> None:
        self.tx = tx
        self.tenant = tenant
        self.pool = pool
        self.now = now

    async def add_networks(self, wanted: Iterable[NewNetwork], app: AppId) -> None:
        """Make the rows of new networks.

        Raises:
            Conflict: the wanted subnet overlaps another network of the tenant.
            Exhausted: no subnet or network number is left.
        """
        present = await networks.every(self.tx, self.tenant)
        there = {row.name: row.id for row in present}
        taken = [IPv4Network(row.subnet) for row in present]
        numbers = await networks.numbers(self.tx)
        rows = []
        for network in wanted:
            if there.get(network.name) == network.id:
                continue  # the one that all apps share was made for another one meanwhile
            if network.name in there:
                raise Conflict(f"Network {network.name!r} was made meanwhile: apply again.")
            number = _free_number(numbers)
            subnet = choose_subnet(network.subnet, network.name, taken, self.pool, number)
            gateway = IPv4Address(network.gateway) if network.gateway else subnet[1]
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
        used = {port.address for port in present.values()}
        chosen, cursor = choose_addresses(row, [port.address for _, port in new], used)
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


def choose_subnet(
    wanted: str | None, name: str, taken: list[IPv4Network], pool: IPv4Network, number: int
) -> IPv4Network:
    """The wanted subnet, or the first free /20 of the pool counted from the network's number."""
    if wanted is not None:
        try:
            subnet = IPv4Network(wanted)
        except ValueError as error:
            raise InvalidInput(f"Network {name!r}: {wanted!r} is not an IPv4 subnet ({error}).") from error
        clash = next((other for other in taken if other.overlaps(subnet)), None)
        if clash is not None:
            raise Conflict(f"Network {name!r}: subnet {subnet} overlaps {clash}, which you use already.")
        if subnet.num_addresses < 8:
            raise InvalidInput(f"Network {name!r}: subnet {subnet} is too small; take a /29 or larger.")
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


def choose_addresses(network: NetworkRow, wanted: list[str | None], used: set[int]) -> tuple[list[int], int]:
    """An address for each entry (None: any), and the network's new cursor.

    Free addresses are given out in turn, so that one that was just freed is not reused at once.
    """
    subnet = IPv4Network(network.subnet)
    used = used | {
        int(IPv4Address(network.gateway)),
        int(subnet.network_address),
        int(subnet.broadcast_address),
    }
    fixed = {}
    for index, text in enumerate(wanted):
        if text is not None:
            fixed[index] = _fixed_address(text, subnet, network.name, used)
            used.add(fixed[index])
    first, count, cursor = int(subnet.network_address), subnet.num_addresses, network.cursor
    result = []
    for index in range(len(wanted)):
        if index in fixed:
            result.append(fixed[index])
            continue
        candidates = (first + (cursor + 1 + step - first) % count for step in range(count))
        address = next((candidate for candidate in candidates if candidate not in used), None)
        if address is None:
            raise Exhausted(
                f"Subnet {subnet} of network {network.name!r} is full: all {count - 3} addresses are in use. "
                "Remove replicas, or use a network with a larger subnet."
            )
        used.add(address)
        cursor = address
        result.append(address)
    return result, cursor


def mac_address(port: PortId) -> str:
    """A locally administered unicast MAC (IEEE 802: second bit of the first byte), derived from the id."""
    tail = hashlib.sha256(port.encode()).digest()[:5]
    return ":".join(f"{byte:02x}" for byte in bytes([0x02]) + tail)


def _fixed_address(text: str, subnet: IPv4Network, name: str, used: set[int]) -> int:
    try:
        address = IPv4Address(text)
    except ValueError as error:
        raise InvalidInput(f"{text!r} is not an IPv4 address.") from error
    if address not in subnet:
        raise InvalidInput(f"Address {address} is not in subnet {subnet} of network {name!r}.")
    if int(address) in used:
        raise Conflict(f"Address {address} of network {name!r} is in use.")
    return int(address)


def _free_number(numbers: set[int]) -> int:
    number = next((n for n in range(1, HIGHEST_NUMBER + 1) if n not in numbers), None)
    if number is None:
        raise Exhausted(f"All {HIGHEST_NUMBER} networks of this installation are in use.")
    return number
