"""Networks that two tenants share: the owner offers, the other accepts, either may end it.

Only a tenant that has accepted may plug in (`addresses.Addresses.claim` asks again, in the transaction that
gives out the address).  An offer names a tenant, and does not tell whether there is one of that name.
"""

from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address

from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.callers import Caller
from skep.control.clock import Now, rfc3339
from skep.control.naming import DEFAULT_NETWORK
from skep.control.networks.network_finding import own_network
from skep.flow import Database
from skep.model.errors import Conflict, Exhausted, InvalidInput, NotFound
from skep.model.ids import ShareId, new_id
from skep.model.names import check_name
from skep.model.views.networks import ShareView
from skep.store import networks, shares
from skep.store.shares import OfferRow, ShareRow
from skep.store.turns import Turn, take_turn

Which = Callable[[OfferRow], bool]

MOST = 256
"""Tenants that a network is shared with."""


class Shares:
    def __init__(self, database: Database, now: Now) -> None:
        self._database = database
        self._now = now

    async def offer(self, caller: Caller, network: str, tenant: str) -> ShareView:
        """Let a tenant plug into a network of the caller's, once it accepts; asking again changes nothing.

        Raises:
            Conflict: the network is an app's own, and goes with it.
        """
        caller.must_change()
        check_name(tenant, "tenant")
        if tenant == caller.tenant_name:
            raise InvalidInput(f"Network {network!r} is {tenant!r}'s already.")
        await self._database.write(partial(self._offer, caller=caller, network=network, tenant=tenant))
        return await self._one(caller, lambda one: _is_ours(one, caller, network, tenant))

    async def accept(self, caller: Caller, owner: str, network: str, alias: str | None = None) -> ShareView:
        """Agree to an offer; apps then join the network as `owner/network`, or as `alias`.

        Raises:
            NotFound: nothing of the kind is offered.
            Conflict: another network has that name.
        """
        caller.must_change()
        name = check_name(alias, "network") if alias else f"{owner}/{network}"
        if name == DEFAULT_NETWORK:
            raise InvalidInput("'default' is where apps go that name no network: choose another alias.")

        async def change(connection: AsyncConnection) -> None:
            await take_turn(connection, Turn.CLAIMING)
            offer = await _find(connection, caller, f"{owner}/{network}")
            if offer.accepted is not None:
                if alias and offer.alias != alias:
                    raise Conflict(f"{owner}/{network} is accepted already, as {offer.alias!r}.")
                return
            if name in await networks.reachable(connection, caller.tenant):
                raise Conflict(f"You have a network {name!r} already: give this one an alias.")
            await shares.accept(connection, offer.id, caller.tenant, name, self._now())

        await self._database.write(change)
        return await self._one(caller, lambda one: _is_theirs(one, caller, f"{owner}/{network}"))

    async def withdraw(self, caller: Caller, network: str, tenant: str) -> None:
        """End it, as the owner.

        Raises:
            Conflict: replicas of the other tenant are plugged in.
        """
        caller.must_change()

        async def change(connection: AsyncConnection) -> None:
            found = await shares.of_tenant(connection, caller.tenant, caller.tenant_name)
            offer = next((one for one in found if _is_ours(one, caller, network, tenant)), None)
            if offer is None:
                raise NotFound(f"Network {network!r} is not shared with {tenant!r}; see 'skep net shares'.")
            await _end(connection, offer)

        await self._database.write(change)

    async def leave(self, caller: Caller, network: str) -> None:
        """End it, or decline it, as the other; the network is named by its alias or as `owner/network`.

        Raises:
            Conflict: replicas of the caller's tenant are plugged in.
        """
        caller.must_change()

        async def change(connection: AsyncConnection) -> None:
            await _end(connection, await _find(connection, caller, network))

        await self._database.write(change)

    async def list(self, caller: Caller) -> list[ShareView]:
        """What the tenant shares, and what is shared with it or offered to it."""
        async with self._database.read() as connection:
            found = await shares.of_tenant(connection, caller.tenant, caller.tenant_name)
        return [share_view(one, caller) for one in found]

    async def _offer(self, connection: AsyncConnection, caller: Caller, network: str, tenant: str) -> None:
        await take_turn(connection, Turn.CLAIMING)
        found = await shares.of_tenant(connection, caller.tenant, caller.tenant_name)
        if any(_is_ours(one, caller, network, tenant) for one in found):
            return
        own = await own_network(connection, caller, network)
        if own.app_id is not None:
            raise Conflict(
                f"Network {network!r} belongs to an app and goes with it: share one of 'skep net create'."
            )
        if sum(one.network_id == own.id for one in found) >= MOST:
            raise Exhausted(f"A network is shared with at most {MOST} tenants.")
        row = ShareRow(
            id=ShareId(new_id()),
            tenant_id=caller.tenant,
            network_id=own.id,
            guest=tenant,
            guest_id=None,
            alias=None,
            created=self._now(),
            accepted=None,
        )
        await shares.insert(connection, row)

    async def _one(self, caller: Caller, which: Which) -> ShareView:
        async with self._database.read() as connection:
            found = await shares.of_tenant(connection, caller.tenant, caller.tenant_name)
        return next(share_view(one, caller) for one in found if which(one))


def share_view(row: OfferRow, caller: Caller) -> ShareView:
    own = row.tenant_id == caller.tenant
    return ShareView(
        network=row.network if own else row.alias or f"{row.owner}/{row.network}",
        owner=row.owner,
        tenant=row.guest,
        accepted=row.accepted is not None,
        created=rfc3339(row.created),
    )


def _is_ours(row: OfferRow, caller: Caller, network: str, tenant: str) -> bool:
    return (row.tenant_id, row.network, row.guest) == (caller.tenant, network, tenant)


def _is_theirs(row: OfferRow, caller: Caller, network: str) -> bool:
    names = (row.alias, f"{row.owner}/{row.network}")
    return row.tenant_id != caller.tenant and row.guest == caller.tenant_name and network in names


async def _find(connection: AsyncConnection, caller: Caller, network: str) -> OfferRow:
    """Raises NotFound, whether there is such a network or not."""
    found = await shares.of_tenant(connection, caller.tenant, caller.tenant_name)
    offer = next((one for one in found if _is_theirs(one, caller, network)), None)
    if offer is None:
        raise NotFound(f"{network!r} is not offered to you; see 'skep net shares'.")
    return offer


async def _end(connection: AsyncConnection, offer: OfferRow) -> None:
    """Raises Conflict: it names what is plugged in, by what both sides know."""
    await take_turn(connection, Turn.CLAIMING)  # nobody plugs in meanwhile
    plugged = [
        f"{row.full_names[0]} ({IPv4Address(row.address)})"
        for row in await networks.attachments(connection, [offer.network_id])
        if row.guest == offer.guest
    ]
    if plugged:
        more = f" and {len(plugged) - 10} more" if len(plugged) > 10 else ""
        raise Conflict(
            f"Replicas of {offer.guest!r} are plugged into {offer.owner}/{offer.network}: "
            f"{', '.join(plugged[:10])}{more}. They must leave first."
        )
    await shares.delete(connection, [offer.id])
