"""Addresses of a network that are given to nobody who does not ask for them."""

from ipaddress import AddressValueError, ip_address, ip_network

from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.callers import Caller
from skep.control.clock import Now, rfc3339
from skep.control.networks.network_finding import own_network
from skep.control.plans.subnets import ranges
from skep.flow import Database
from skep.model.errors import Conflict, Exhausted, InvalidInput, NotFound
from skep.model.ids import ReservationId, new_id
from skep.model.views.networks import ReservationView
from skep.store import reservations
from skep.store.networks import NetworkRow
from skep.store.reservations import ReservationRow
from skep.store.turns import Turn, take_turn

MOST = 256
"""Reservations of one network."""
LONGEST_PURPOSE = 200


class Reservations:
    """For the owner of the network only."""

    def __init__(self, database: Database, now: Now) -> None:
        self._database = database
        self._now = now

    async def add(self, caller: Caller, network: str, addresses: str, purpose: str = "") -> ReservationView:
        """Keep an address, or a range of them, for replicas that ask for it by `ipv4_address`.

        Who has such an address already keeps it.

        Raises:
            InvalidInput: they are not addresses of the network.
            Conflict: one of them is reserved already.
        """
        caller.must_change()
        first, last = parse_range(addresses)
        if len(purpose) > LONGEST_PURPOSE:
            raise InvalidInput(f"Say in at most {LONGEST_PURPOSE} characters what the addresses are for.")

        async def change(connection: AsyncConnection) -> ReservationRow:
            await take_turn(connection, Turn.CLAIMING)
            found = await own_network(connection, caller, network)
            _must_be_in(found, first, last)
            present = await reservations.of_network(connection, found.id)
            if len(present) >= MOST:
                raise Exhausted(f"A network has at most {MOST} reservations: reserve ranges.")
            clash = next((one for one in present if first <= one.last and one.first <= last), None)
            if clash is not None:
                raise Conflict(f"{range_text(clash.first, clash.last)} is reserved already.")
            row = ReservationRow(
                id=ReservationId(new_id()),
                tenant_id=caller.tenant,
                network_id=found.id,
                first=first,
                last=last,
                purpose=purpose,
                created=self._now(),
            )
            await reservations.insert(connection, row)
            return row

        return reservation_view(await self._database.write(change))

    async def remove(self, caller: Caller, network: str, addresses: str) -> None:
        """Give a reservation up, whole.  Raises NotFound: exactly these addresses are not reserved."""
        caller.must_change()
        first, last = parse_range(addresses)

        async def change(connection: AsyncConnection) -> None:
            found = await own_network(connection, caller, network)
            present = await reservations.of_network(connection, found.id)
            ids = [one.id for one in present if (one.first, one.last) == (first, last)]
            if not ids:
                raise NotFound(
                    f"{range_text(first, last)} is no reservation of network {network!r}; see 'skep net show "
                    f"{network}'."
                )
            await reservations.delete(connection, ids)

        await self._database.write(change)


def parse_range(text: str) -> tuple[int, int]:
    """`10.1.0.5`, `10.1.0.5-10.1.0.9` or `10.1.0.16/28`, as the first and the last address.

    Raises:
        InvalidInput: it is none of them.
    """
    try:
        if "/" in text:
            block = ip_network(text)
            return int(block.network_address), int(block.broadcast_address)
        start, _, end = text.partition("-")
        first = ip_address(start.strip())
        last = ip_address(end.strip()) if end else first
    except (AddressValueError, ValueError) as error:
        raise InvalidInput(
            f"{text[:60]!r} is no range: write 10.1.0.5, 10.1.0.5-10.1.0.9 or 10.1.0.16/28."
        ) from error
    if first.version != last.version:
        raise InvalidInput(f"{text[:60]!r} has ends of two families.")
    if int(last) < int(first):
        raise InvalidInput(f"{text[:60]!r} ends before it begins.")
    return int(first), int(last)


def range_text(first: int, last: int) -> str:
    ends = (first,) if first == last else (first, last)
    return "-".join(str(ip_address(end)) for end in ends)


def reservation_view(row: ReservationRow) -> ReservationView:
    return ReservationView(
        addresses=range_text(row.first, row.last), purpose=row.purpose, created=rfc3339(row.created)
    )


def _must_be_in(network: NetworkRow, first: int, last: int) -> None:
    known = ranges(network)
    if not any(one.first <= first and last <= one.last for one in known):
        subnets = ", ".join(str(one.cidr) for one in known)
        raise InvalidInput(f"{range_text(first, last)} is not in subnet {subnets} of {network.name!r}.")
