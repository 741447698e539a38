"""Address management: subnets for networks, an address and a MAC for every port.

Runs inside the transaction of `release.claim`, so an address is promised once.
"""

import hashlib
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, ip_address

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.plans.plans import NewNetwork, NewPort
from skep.control.plans.subnets import (
    Range,
    blocks,
    choose_gateway,
    choose_ipv6,
    choose_subnet,
    join,
    moved,
    of_family,
    own_addresses,
)
from skep.model.errors import Conflict, Exhausted, InvalidInput
from skep.model.ids import AppId, NetworkId, PortId, ReplicaId, ServiceId, TenantId, new_id
from skep.store import networks, reservations, shares, virtual_ips
from skep.store.networks import NetworkRow, PortRow
from skep.store.reservations import ReservationRow
from skep.store.virtual_ips import VirtualIpRow

HIGHEST_NUMBER = 16_383


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
        taken = blocks(row for row in present.values() if row.tenant_id == self.tenant)
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
            row = NetworkRow(
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
            row = join(row, network.more, taken)
            if network.enable_ipv6 and not of_family(row, 6):
                row = join(row, [(choose_ipv6(row, taken), None)], taken)
            taken += blocks([row])
            rows.append(row)
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
        used = await self._used(network)
        chosen, row = choose_addresses(row, [port.address for _, port in new], used, reserved, guest=guest)
        wanted6 = [port.address6 for _, port in new]
        used6 = {port.address6 for port in present.values() if port.address6 is not None}
        chosen6, row = choose_ipv6_addresses(row, wanted6, used6, reserved, guest=guest)
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
                    address6=address6,
                )
                for (replica, port), address, address6 in zip(new, chosen, chosen6, strict=True)
            ],
        )
        await networks.set_ranges(self.tx, row)

    async def claim_virtual_ips(self, wanted: Iterable[tuple[ServiceId, NetworkId]]) -> None:
        """Give every service that has none its address on the network, where there is room for it."""
        by_network: dict[NetworkId, set[ServiceId]] = {}
        for service, network in wanted:
            by_network.setdefault(network, set()).add(service)
        for network, services in by_network.items():
            present = {row.service_id for row in await virtual_ips.on_network(self.tx, network)}
            await self._claim_virtual_ips(network, services - present)

    async def _claim_virtual_ips(self, network: NetworkId, services: set[ServiceId]) -> None:
        row = await networks.get(self.tx, network) if services else None
        if row is None:
            return
        reserved = [Reserved.of(kept) for kept in await reservations.of_network(self.tx, network)]
        used = await self._used(network)
        new = []
        for service in sorted(services):
            address = choose_virtual_ip(row, service, used, reserved)
            if address is not None:
                used.add(address)
                new.append(
                    VirtualIpRow(
                        id=new_id(),
                        tenant_id=self.tenant,
                        service_id=service,
                        network_id=network,
                        address=address,
                    )
                )
        await virtual_ips.insert(self.tx, new)

    async def _used(self, network: NetworkId) -> set[int]:
        """By ports and services."""
        ports = {row.address for row in await networks.ports_of(self.tx, network=network)}
        return ports | {row.address for row in await virtual_ips.on_network(self.tx, network)}


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
        text = "-".join(str(ip_address(end)) for end in ends)
        return f"{text} for {self.purpose}" if self.purpose else text


def choose_addresses(
    network: NetworkRow,
    wanted: list[str | None],
    used: set[int],
    reserved: Sequence[Reserved] = (),
    *,
    guest: bool = False,
    version: int = 4,
) -> tuple[list[int], NetworkRow]:
    """An address for each entry (None: any that is not reserved), and the network as it goes on from there.

    Free addresses are given out in turn, so that one that was just freed is not reused at once; when a subnet
    is full, the next one is used.  What is reserved is for the owner's replicas that ask for it: a `guest`
    does not get it, nor hears what it is for.
    """
    known = of_family(network, version)
    own = own_addresses(network)
    used = used | own
    fixed = {}
    for index, text in enumerate(wanted):
        if text is not None:
            fixed[index] = _fixed_address(text, known, network.name, used, reserved if guest else ())
            used.add(fixed[index])
    result = []
    for index in range(len(wanted)):
        if index in fixed:
            result.append(fixed[index])
            continue
        place, address = _any_free(known, used, reserved)
        if address is None:
            raise Exhausted(_full(network, known, len(used - own), reserved, guest))
        used.add(address)
        known[place] = msgspec.structs.replace(known[place], cursor=address)
        result.append(address)
    return result, moved(network, known)


def choose_ipv6_addresses(
    network: NetworkRow,
    wanted: list[str | None],
    used: set[int],
    reserved: Sequence[Reserved] = (),
    *,
    guest: bool = False,
) -> tuple[Sequence[int | None], NetworkRow]:
    """As `choose_addresses`; nobody gets one where the network has no IPv6, and to ask for one is refused."""
    if of_family(network, 6):
        return choose_addresses(network, wanted, used, reserved, guest=guest, version=6)
    if any(wanted):
        raise InvalidInput(
            f"Network {network.name!r} has no IPv6. Say 'skep net subnet add {network.name} CIDR' with an "
            "IPv6 subnet first."
        )
    return [None] * len(wanted), network


def choose_virtual_ip(
    network: NetworkRow, service: ServiceId, used: set[int], reserved: Sequence[Reserved] = ()
) -> int | None:
    """In the upper half of a subnet, at a place that depends on the service; None: nothing is free.

    So replicas have addresses that follow each other, and one that was given back is not another's at once.
    """
    for one in of_family(network, 4):
        half = one.cidr.num_addresses // 2
        place = int.from_bytes(hashlib.sha256(service.encode()).digest()[:4]) % half
        start = msgspec.structs.replace(one, cursor=one.first + half + place - 1)
        if (address := _next_free(start, used | one.own, reserved)) is not None:
            return address
    return None


def count_reserved(one: Range, used: set[int], reserved: Iterable[Reserved]) -> int:
    """How many free addresses of a subnet are kept back; a reservation lies within one."""
    taken = used | one.own
    return sum(
        kept.last - kept.first + 1 - sum(address in kept for address in taken)
        for kept in reserved
        if kept.first in one
    )


def _any_free(known: Sequence[Range], used: set[int], reserved: Sequence[Reserved]) -> tuple[int, int | None]:
    """In the first subnet that has room, and which that is."""
    for place, one in enumerate(known):
        if (address := _next_free(one, used, reserved)) is not None:
            return place, address
    return 0, None


def _next_free(one: Range, used: set[int], reserved: Sequence[Reserved]) -> int | None:
    """The first that may be given out after the cursor, then from the beginning."""
    for candidate, end in ((one.cursor + 1, one.last), (one.first, min(one.cursor, one.last))):
        while candidate <= end:
            kept = next((one for one in reserved if candidate in one), None)
            if kept is None and candidate not in used:
                return candidate
            candidate = kept.last + 1 if kept is not None else candidate + 1
    return None


def _full(
    network: NetworkRow, known: Sequence[Range], used: int, reserved: Sequence[Reserved], guest: bool
) -> str:
    subnets = [str(one.cidr) for one in known]
    each = f"Subnet {subnets[0]}" if len(subnets) == 1 else f"Each of the subnets {', '.join(subnets)}"
    full = f"{each} of network {network.name!r} is full:"
    if guest:
        return f"{full} ask its owner for room, or use a network of your own."
    if not reserved:
        return (
            f"{full} all {used} addresses are in use. Remove replicas, or add a subnet with 'skep net subnet "
            "add'."
        )
    listed = ", ".join(map(str, reserved[:5])) + (", …" if len(reserved) > 5 else "")
    return (
        f"{full} {used} addresses are in use, and the rest is reserved ({listed}). Remove replicas, give up "
        "a reservation with 'skep net unreserve', or add a subnet with 'skep net subnet add'."
    )


def mac_address(port: PortId) -> str:
    """A locally administered unicast MAC (IEEE 802: second bit of the first byte), derived from the id."""
    tail = hashlib.sha256(port.encode()).digest()[:5]
    return ":".join(f"{byte:02x}" for byte in bytes([0x02]) + tail)


def _fixed_address(
    text: str, known: Sequence[Range], name: str, used: set[int], reserved: Sequence[Reserved]
) -> int:
    try:
        address = ip_address(text)
    except ValueError as error:
        raise InvalidInput(f"{text!r} is not an IPv{known[0].cidr.version} address.") from error
    if not any(address in one.cidr and int(address) in one for one in known):
        subnets = ", ".join(one.text for one in known)
        raise InvalidInput(f"Address {address} is not in subnet {subnets} of network {name!r}.")
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
