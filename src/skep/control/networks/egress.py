"""Egress addresses: an operator gives them to a zone, a tenant's network leaves to the outside by one.

As with egress IPs elsewhere, the address is a network's, wherever its replicas run: one host of the zone has
it, and the others lead there (`egressing.py`).
"""

from collections.abc import Sequence
from ipaddress import IPv4Address

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.callers import Caller, Role
from skep.control.clock import Now, rfc3339
from skep.control.networks.network_finding import own_network
from skep.control.networks.reservations import parse_range
from skep.control.telling.egressing import Egressing, settle
from skep.flow import Database
from skep.model.errors import Conflict, Exhausted, InvalidInput, NotFound
from skep.model.ids import EgressId, HostName, NetworkId, TenantId, ZoneName, new_id
from skep.model.views.networks import EgressView
from skep.store import egress, hosts, networks, tenants
from skep.store.egress import EgressRow
from skep.store.networks import NetworkRow
from skep.store.turns import Turn, take_turn

MOST_AT_ONCE = 256
"""Addresses that an operator gives with one call."""
MOST_OF_ALL = 4
"""Addresses that a tenant uses of those that are for anybody."""


class EgressAddresses:
    """`egressing` tells hosts of a change at once; without it the reconciler does."""

    def __init__(self, database: Database, egressing: Egressing | None, now: Now) -> None:
        self._database = database
        self._egressing = egressing
        self._now = now

    async def add(
        self, caller: Caller, zone: str, addresses: str, tenant: str | None = None
    ) -> list[EgressView]:
        """Give a zone addresses that its hosts can have; for one tenant, or for anybody.

        Raises:
            InvalidInput: they are not addresses of single hosts.
            Conflict: one of them is there already, or is a host's own.
        """
        caller.must_operate()
        wanted = _addresses(addresses)

        async def change(connection: AsyncConnection) -> None:
            if zone not in {one.name for one in await hosts.every_zone(connection)}:
                raise NotFound(f"There is no zone {zone!r}; see 'skep zone ls'.")
            owner = await tenants.by_name(connection, tenant) if tenant else None
            if tenant and owner is None:
                raise NotFound(f"There is no tenant {tenant!r}; see 'skep tenant ls'.")
            own = {one.underlay for one in await hosts.every(connection)}
            if clash := next((one for one in wanted if str(one) in own), None):
                raise Conflict(f"{clash} is the address of a host.")
            new = [self._row(ZoneName(zone), one, owner.id if owner else None) for one in wanted]
            await egress.insert(connection, new)

        try:
            await self._database.write(change)
        except IntegrityError as error:
            raise Conflict(f"One of {addresses} is there already; see 'skep net egress ls'.") from error
        return [one for one in await self.list(caller) if IPv4Address(one.address) in wanted]

    async def remove(self, caller: Caller, address: str) -> None:
        """Take an address back.  Raises Conflict: a network has it."""
        caller.must_operate()

        async def change(connection: AsyncConnection) -> None:
            row = _find(await egress.every(connection), address)
            if row.network_id is not None:
                raise Conflict(f"A network leaves by {address}; see 'skep net egress ls'.")
            await egress.delete(connection, [row.id])

        await self._database.write(change)

    async def assign(self, caller: Caller, network: str, address: str | None = None) -> EgressView:
        """Let a network of the caller's leave by this address, or by a free one that its tenant may have.

        It holds on every host that answers when the call returns.  Connections from before end.

        Raises:
            NotFound: there is no such network, or no such address that the tenant may have.
            InvalidInput: the network has no way out.
            Conflict: another network has the address.
            Exhausted: none is free, or the tenant has many already.
        """
        caller.must_change()

        async def change(connection: AsyncConnection) -> tuple[NetworkId, EgressRow | None]:
            await take_turn(connection, Turn.CLAIMING)
            row = await own_network(connection, caller, network)
            if row.internal:
                raise InvalidInput(f"Network {network!r} is internal: nothing leaves it.")
            mine = {one.id for one in await networks.every(connection, caller.tenant)}
            every = await egress.every(connection)
            before = next((one for one in every if one.network_id == row.id), None)
            if before is not None and address in (None, str(IPv4Address(before.address))):
                return row.id, before
            chosen = _choose(_usable(every, caller.tenant, mine), address, mine)
            if before is not None:
                await egress.assign(connection, before.id, None, None)
            await egress.assign(connection, chosen.id, row.id, None)
            await settle(connection)
            return row.id, before

        found, before = await self._database.write(change)
        await self._tell(found, before.host if before else None)
        return next(one for one in await self.list(caller) if one.network == network)

    async def unassign(self, caller: Caller, network: str) -> None:
        """Let the network leave by its hosts' own addresses again.  Raises NotFound: it has no address."""
        caller.must_change()

        async def change(connection: AsyncConnection) -> tuple[NetworkId, EgressRow]:
            row = await own_network(connection, caller, network)
            found = (await egress.by_network(connection, [row.id])).get(row.id)
            if found is None:
                raise NotFound(f"Network {network!r} has no egress address.")
            await egress.assign(connection, found.id, None, None)
            return row.id, found

        found, before = await self._database.write(change)
        await self._tell(found, before.host)

    async def list(self, caller: Caller) -> list[EgressView]:
        """What the caller's tenant has or may have; an operator sees all of them with their tenants."""
        operates = caller.role is Role.ADMIN
        async with self._database.read() as connection:
            rows = await egress.every(connection)
            known = {row.id: row for row in await networks.every(connection)}
            owners = {row.id: str(row.name) for row in await tenants.every(connection)}
        mine = {key for key, row in known.items() if row.tenant_id == caller.tenant}
        shown = rows if operates else _usable(rows, caller.tenant, mine)
        return [egress_view(row, known, owners, caller.tenant) for row in shown]

    def _row(self, zone: ZoneName, address: IPv4Address, tenant: TenantId | None) -> EgressRow:
        return EgressRow(
            id=EgressId(new_id()),
            zone=zone,
            address=int(address),
            tenant_id=tenant,
            network_id=None,
            host=None,
            created=self._now(),
        )

    async def _tell(self, network: NetworkId, left: HostName | None) -> None:
        if self._egressing is not None:
            await self._egressing.announce([network], [left] if left else [])


def _addresses(text: str) -> list[IPv4Address]:
    first, last = parse_range(text)
    if last - first >= MOST_AT_ONCE:
        raise InvalidInput(f"Give at most {MOST_AT_ONCE} addresses at once.")
    found = [IPv4Address(one) for one in range(first, last + 1)]
    for one in found:
        if one.is_multicast or one.is_loopback or one.is_link_local or one.is_reserved or one.is_unspecified:
            raise InvalidInput(f"{one} cannot be the address of a host.")
    return found


def _find(rows: Sequence[EgressRow], address: str) -> EgressRow:
    row = next((one for one in rows if str(IPv4Address(one.address)) == address), None)
    if row is None:
        raise NotFound(f"There is no egress address {address[:40]!r}; see 'skep net egress ls'.")
    return row


def _usable(rows: Sequence[EgressRow], tenant: TenantId, mine: set[NetworkId]) -> list[EgressRow]:
    """Given to the tenant, or for anybody and not in use by others."""
    return [
        row
        for row in rows
        if row.tenant_id == tenant
        or row.network_id in mine
        or (row.tenant_id is None and row.network_id is None)
    ]


def _choose(rows: Sequence[EgressRow], address: str | None, mine: set[NetworkId]) -> EgressRow:
    """The wanted one; else a free one, first of those that are the tenant's alone."""
    if address is not None:
        chosen = _find(rows, address)
        if chosen.network_id is not None:
            raise Conflict(f"Another network leaves by {address}; see 'skep net egress ls'.")
    else:
        free = sorted(
            (row for row in rows if row.network_id is None),
            key=lambda one: (one.tenant_id is None, one.address),
        )
        if not free:
            raise Exhausted("No egress address is free: ask an operator for one ('skep net egress add').")
        chosen = free[0]
    used = sum(row.tenant_id is None and row.network_id in mine for row in rows)
    if chosen.tenant_id is None and used >= MOST_OF_ALL:
        raise Exhausted(f"A tenant has at most {MOST_OF_ALL} of the addresses that are for anybody.")
    return chosen


def egress_view(
    row: EgressRow,
    known: dict[NetworkId, NetworkRow],
    owners: dict[TenantId, str],
    tenant: TenantId,
) -> EgressView:
    """Networks of other tenants are named with them, for operators."""
    network = known.get(row.network_id) if row.network_id else None
    return EgressView(
        address=str(IPv4Address(row.address)),
        zone=row.zone,
        tenant=owners.get(row.tenant_id, "") if row.tenant_id else "",
        network=_called(network, owners, tenant) if network else "",
        host=row.host or "",
        created=rfc3339(row.created),
    )


def _called(network: NetworkRow, owners: dict[TenantId, str], tenant: TenantId) -> str:
    own = network.tenant_id == tenant
    return network.name if own else f"{owners.get(network.tenant_id, '')}/{network.name}"
