"""Networks of a tenant, those that others share with it, and the ports on them."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.callers import Caller
from skep.control.clock import Now, rfc3339
from skep.control.host_directory import HostDirectory
from skep.control.naming import DEFAULT_NETWORK, default_network
from skep.control.networks import tracing, translation
from skep.control.networks.addresses import Addresses
from skep.control.networks.egress import egress_view
from skep.control.networks.network_finding import own_network
from skep.control.networks.network_views import address_view, network_view, service_view, with_counts
from skep.control.networks.shares import share_view
from skep.control.networks.tracing import six_text
from skep.control.plans.plans import NewNetwork
from skep.control.plans.subnets import blocks, join, ranges
from skep.control.telling.guards import GuardMap, guard_maps
from skep.control.telling.peers import maps
from skep.flow import Database, FlowEngine
from skep.model.errors import Conflict, Exhausted, NotFound, SkepError
from skep.model.groups import check_service
from skep.model.host import PeersInForce
from skep.model.ids import HostName, NetworkId, new_id
from skep.model.names import check_name
from skep.model.spec import AppSubnet
from skep.model.views.base import Accepted
from skep.model.views.networks import (
    HopView,
    NetworkDetail,
    NetworkView,
    PlaceView,
    PortView,
    SubnetView,
    TraceView,
)
from skep.store import (
    apps,
    egress,
    endpoints,
    groups,
    hosts,
    networks,
    replicas,
    reservations,
    shares,
    tenants,
    virtual_ips,
)
from skep.store.networks import NetworkRow
from skep.store.turns import Turn, take_turn

PATIENCE = 2.0
"""Seconds that a host may take to say what it knows."""


MOST = 256
"""Networks that a tenant makes; the numbers of all of an installation are 16,383."""


class Networks:
    def __init__(
        self, database: Database, flows: FlowEngine, directory: HostDirectory, pool: IPv4Network, now: Now
    ) -> None:
        self._database = database
        self._pool = pool
        self._now = now
        self._flows = flows
        self._directory = directory

    async def ports(self, caller: Caller, network: str | None = None) -> list[PortView]:
        async with self._database.read() as connection:
            names = await _names(connection, caller, network)
            owners = {row.id: row.name for row in await apps.every(connection, caller.tenant)}
            members = {
                row.id: f"{owners.get(row.app_id, '')}/{row.name}"
                for row in await replicas.find(connection, tenant=caller.tenant)
            }
            rows = await networks.ports_of(connection, tenant=caller.tenant)
        return [
            PortView(
                id=row.id,
                network=names[row.network_id],
                replica=members.get(row.replica_id, ""),
                address=str(IPv4Address(row.address)),
                mac=row.mac,
                address6=six_text(row.address6),
            )
            for row in rows
            if network in (None, names[row.network_id])
        ]

    async def map(self, caller: Caller, network: str | None = None) -> list[PlaceView]:
        """Where the tenant's replicas on its networks are, and where the addresses of its services lead."""
        async with self._database.read() as connection:
            names = await _names(connection, caller, network)
            chosen = [key for key, name in names.items() if network in (None, name)]
            rows = await networks.attachments(connection, chosen)
            places = {row.name: row for row in await hosts.every(connection)}
            led = await egress.by_network(connection, chosen)
            ways = await translation.read(connection, chosen, caller.tenant, rows)
        here = [
            tracing.place(row, names[row.network_id], places[row.host], led.get(row.network_id))
            for row in tracing.ordered(rows, names)
            if row.tenant_id == caller.tenant
        ]
        return [*here, *(translation.place(one, names[one.network]) for one in ways)]

    async def trace(
        self,
        caller: Caller,
        source: str,
        target: str,
        *,
        port: int | None = None,
        protocol: str = "tcp",
    ) -> TraceView:
        """Why the replica `source` can or cannot reach `target`, which may be a service; named `app/name`.

        A target that is an IPv4 address is somewhere outside.

        With a port, or a protocol that has none, security groups are asked about it; else about anything.

        Raises:
            NotFound: the tenant has no such replica, nor such a service with an address of its own.
            InvalidInput: there is no such port or protocol.
        """
        check_service(protocol, port)
        if (hop := await self._translated(caller, source, target)) is None:
            return await self._traced(caller, source, target, port, protocol)
        if not hop[0].passes:
            return TraceView(source=source, target=target, reachable=False, hops=[hop[0]])
        rest = await self._traced(caller, source, hop[1], port, protocol)
        return msgspec.structs.replace(rest, hops=[hop[0], *rest.hops])

    async def _translated(self, caller: Caller, source: str, target: str) -> tuple[HopView, str] | None:
        """If the target is a service: how its address is translated, and the first replica it leads to."""
        async with self._database.read() as connection:
            known = {row.id for row in (await networks.reachable(connection, caller.tenant)).values()}
            rows = await networks.attachments(connection, known)
            places = {row.name: row for row in await hosts.every(connection)}
            ways = await translation.read(connection, known, caller.tenant, rows)
        begin = tracing.end([row for row in rows if row.tenant_id == caller.tenant], places, source)
        if (way := translation.way(ways, begin, target)) is None:
            return None
        hop = translation.hop(begin, way, await self._leads(begin.host.name))
        return hop, way.backends[0].replica if way.backends else ""

    async def _traced(
        self, caller: Caller, source: str, target: str, port: int | None, protocol: str
    ) -> TraceView:
        async with self._database.read() as connection:
            known = {row.id: row for row in (await networks.reachable(connection, caller.tenant)).values()}
            rows = await networks.attachments(connection, known)
            places = {row.name: row for row in await hosts.every(connection)}
            members = await groups.members(connection, known)
            every = await groups.every(connection)
            led = await egress.by_network(connection, known)
            everywhere = await endpoints.networks(connection, known)
        own = [row for row in rows if row.tenant_id == caller.tenant]
        outside = tracing.outside(target)
        ends = [tracing.end(own, places, name) for name in ((source,) if outside else (source, target))]
        told = {end.host.name: await self._told(end.host.name) for end in ends}
        ruling = [row for row in every if row.tenant_id == caller.tenant]
        guarded = guard_maps(0, members, every)
        asked = tracing.Asked(
            protocol=protocol if port is not None or protocol == "icmp" else "",
            port=port or 0,
            groups={row.name: row.rules for row in ruling},
            members={(row.network_id, row.address): row.security_groups for row in members},
            untold=frozenset([name for name in told if not await self._is_guarded(name, guarded)]),
        )
        found = maps(0, rows, places.values(), everywhere, led)
        if outside:
            leader = led[network].host if (network := tracing.way_out(ends[0])) in led else None
            if leader is not None and leader not in told:
                told[leader] = await self._told(leader)
            return tracing.leaving(ends[0], outside, known, found, places, led, told, asked)
        return tracing.trace(ends[0], ends[1], known, found, told, asked)

    async def _leads(self, host: HostName) -> dict[NetworkId, PeersInForce] | None:
        """What the host knows of virtual IPs; None: it does not answer."""
        try:
            async with asyncio.timeout(PATIENCE):
                there = await self._directory.answering(host)
                return await there.fabric.virtual_ips()
        except (SkepError, TimeoutError):
            return None

    async def _is_guarded(self, host: HostName, guarded: dict[NetworkId, GuardMap]) -> bool:
        """Whether the host knows the newest of what guards its ports."""
        concerned = [found for found in guarded.values() if host in found.hosts]
        if not concerned:
            return True
        try:
            async with asyncio.timeout(PATIENCE):
                reached = await self._directory.answering(host)
                there = await reached.fabric.guards()
        except (SkepError, TimeoutError):
            return False
        return all(
            found.network in there and there[found.network].digest == found.digest_from(host)
            for found in concerned
        )

    async def _told(self, host: HostName) -> dict[NetworkId, PeersInForce] | None:
        """What the host knows of others; None: it does not answer."""
        try:
            async with asyncio.timeout(PATIENCE):
                there = await self._directory.answering(host)
                return await there.fabric.peers()
        except (SkepError, TimeoutError):
            return None

    async def remove(self, caller: Caller, network: str) -> Accepted:
        """Delete a network nobody is plugged into; an app that needs it again makes it again.

        Hosts that do not answer now are tidied up by the reconciler when they do.
        """
        caller.must_change()
        async with self._database.read() as connection:
            row = await own_network(connection, caller, network)
            if await networks.ports_of(connection, network=row.id):
                raise Conflict(
                    f"Replicas are plugged into network {network!r}; see 'skep net show {network}'."
                )
            answering = [row.name for row in await hosts.every(connection) if row.answers]
        run = await self._flows.start(
            "network.delete",
            {"network": row.id, "hosts": answering},
            tenant=caller.tenant,
            title=f"delete network {network}",
        )
        return Accepted(run=run)

    async def create(
        self,
        caller: Caller,
        name: str,
        *,
        subnet: str | None = None,
        gateway: str | None = None,
        internal: bool = False,
        more: Sequence[AppSubnet] = (),
        enable_ipv6: bool = False,
    ) -> NetworkView:
        """Make a network that belongs to no app: apps join it by name, as an external one.

        Hosts hear of it when a replica is plugged into it there.

        Raises:
            Conflict: the name is taken, or the subnet overlaps another of the tenant.
            Exhausted: the tenant has many already, or no subnet is left.
        """
        caller.must_change()
        wanted = NewNetwork(
            id=default_network(caller.tenant) if name == DEFAULT_NETWORK else NetworkId(new_id()),
            name=check_name(name, "network"),
            subnet=subnet,
            gateway=gateway,
            internal=internal,
            more=tuple((one.subnet, one.gateway) for one in more),
            enable_ipv6=enable_ipv6,
            own=False,
        )

        async def change(connection: AsyncConnection) -> NetworkRow:
            await take_turn(connection, Turn.CLAIMING)
            present = await networks.reachable(connection, caller.tenant)
            if name in present:
                raise Conflict(f"There is a network {name!r} already; see 'skep net ls'.")
            if sum(row.app_id is None for row in present.values()) >= MOST:
                raise Exhausted(f"A tenant makes at most {MOST} networks; remove one with 'skep net rm'.")
            await Addresses(connection, caller.tenant, self._pool, self._now()).add_networks([wanted], None)
            return await own_network(connection, caller, name)

        return network_view(await self._database.write(change), caller.tenant_name, 0)

    async def add_subnet(self, caller: Caller, network: str, subnet: AppSubnet) -> Accepted:
        """Let a network grow by a subnet, which is used when those before it are full.

        What is plugged in stays so, and reaches what will live in the new subnet; hosts that do not answer
        now hear of it when they do.

        Raises:
            Conflict: it overlaps another subnet of the tenant.
            Exhausted: the network has many already.
        """
        caller.must_change()

        async def change(connection: AsyncConnection) -> NetworkRow:
            await take_turn(connection, Turn.CLAIMING)
            row = await own_network(connection, caller, network)
            others = [one for one in await networks.every(connection, caller.tenant) if one.id != row.id]
            grown = join(row, [(subnet.subnet, subnet.gateway)], blocks(others))
            await networks.set_ranges(connection, grown)
            return grown

        row = await self._database.write(change)
        async with self._database.read() as connection:
            answering = {one.name for one in await hosts.every(connection) if one.answers}
            concerned = {port.host for port in await networks.attachments(connection, [row.id])}
        run = await self._flows.start(
            "network.widen",
            {"network": row.id, "hosts": sorted(answering & concerned)},
            tenant=caller.tenant,
            title=f"add {subnet.subnet} to network {network}",
        )
        return Accepted(run=run)

    async def show(self, caller: Caller, network: str) -> NetworkDetail:
        """Who is on the network; for its owner also what is left and reserved, and with whom it is shared."""
        async with self._database.read() as connection:
            row = (await networks.reachable(connection, caller.tenant)).get(network)
            if row is None:
                raise NotFound(f"There is no network {network!r}; see 'skep net ls'.")
            owner = await tenants.get(connection, row.tenant_id)
            owner_name = owner.name if owner else ""
            rows = await networks.attachments(connection, [row.id])
            services = await virtual_ips.named(connection, [row.id])
            kept = await reservations.of_network(connection, row.id)
            offers = await shares.of_tenant(connection, caller.tenant, caller.tenant_name)
            led = (await egress.by_network(connection, [row.id])).get(row.id)
        detail = NetworkDetail(
            name=row.name,
            owner=owner_name,
            subnet=row.subnet,
            gateway=row.gateway,
            internal=row.internal,
            created=rfc3339(row.created),
            ports=[
                *(
                    address_view(port, owner_name, caller)
                    for port in sorted(rows, key=lambda one: one.address)
                ),
                *(service_view(one, owner_name) for one in services),
            ],
            subnets=[SubnetView(subnet=str(one.cidr), gateway=str(one.gateway)) for one in ranges(row)],
            shares=[share_view(offer, caller) for offer in offers if offer.network_id == row.id],
            egress=egress_view(led, {row.id: row}, {}, row.tenant_id) if led else None,
        )
        return (
            detail if row.tenant_id != caller.tenant else with_counts(detail, row, [*rows, *services], kept)
        )

    async def list(self, caller: Caller) -> list[NetworkView]:
        async with self._database.read() as connection:
            rows = await networks.reachable(connection, caller.tenant)
            owners = {row.id: row.name for row in await tenants.every(connection)}
            count = Counter(
                port.network_id for port in await networks.ports_of(connection, tenant=caller.tenant)
            )
        return [network_view(row, owners[row.tenant_id], count[row.id]) for _, row in sorted(rows.items())]


async def _names(connection: AsyncConnection, caller: Caller, wanted: str | None) -> dict[NetworkId, str]:
    """What the tenant calls the networks it may plug into.  Raises NotFound: none is called `wanted`."""
    names = {row.id: name for name, row in (await networks.reachable(connection, caller.tenant)).items()}
    if wanted is not None and wanted not in names.values():
        raise NotFound(f"There is no network {wanted!r}; see 'skep net ls'.")
    return names
