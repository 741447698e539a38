"""Networks of a tenant and the ports on them."""

import asyncio
from collections import Counter
from ipaddress import IPv4Address

from skep.control import tracing
from skep.control.callers import Caller
from skep.control.clock import rfc3339
from skep.control.host_directory import HostDirectory
from skep.control.peers import maps
from skep.flow import Database, FlowEngine
from skep.model.errors import Conflict, NotFound, SkepError
from skep.model.host import PeersInForce
from skep.model.ids import HostName, NetworkId
from skep.model.views import Accepted, NetworkView, PlaceView, PortView, TraceView
from skep.store import apps, hosts, networks, replicas

PATIENCE = 2.0
"""Seconds that a host may take to say what it knows."""


class Networks:
    def __init__(self, database: Database, flows: FlowEngine, directory: HostDirectory) -> None:
        self._database = database
        self._flows = flows
        self._directory = directory

    async def ports(self, caller: Caller, network: str | None = None) -> list[PortView]:
        async with self._database.read() as connection:
            names = {row.id: row.name for row in await networks.every(connection, caller.tenant)}
            if network is not None and network not in names.values():
                raise NotFound(f"There is no network {network!r}; see 'skep net ls'.")
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
            )
            for row in rows
            if network in (None, names[row.network_id])
        ]

    async def map(self, caller: Caller, network: str | None = None) -> list[PlaceView]:
        """Where everything on the tenant's networks is, network by network and host by host."""
        async with self._database.read() as connection:
            names = {row.id: row.name for row in await networks.every(connection, caller.tenant)}
            if network is not None and network not in names.values():
                raise NotFound(f"There is no network {network!r}; see 'skep net ls'.")
            chosen = [key for key, name in names.items() if network in (None, name)]
            rows = await networks.attachments(connection, chosen)
            places = {row.name: row for row in await hosts.every(connection)}
        return [
            tracing.place(row, names[row.network_id], places[row.host])
            for row in tracing.ordered(rows, names)
        ]

    async def trace(self, caller: Caller, source: str, target: str) -> TraceView:
        """Why the replica `source` can or cannot reach `target`; both are named `app/name`.

        Raises NotFound: the tenant has no such replica.
        """
        async with self._database.read() as connection:
            known = {row.id: row for row in await networks.every(connection, caller.tenant)}
            rows = await networks.attachments(connection, known)
            places = {row.name: row for row in await hosts.every(connection)}
        ends = [tracing.end(rows, places, name) for name in (source, target)]
        told = {end.host.name: await self._told(end.host.name) for end in ends}
        return tracing.trace(ends[0], ends[1], known, maps(0, rows, places.values()), told)

    async def _told(self, host: HostName) -> dict[NetworkId, PeersInForce] | None:
        """What the host knows of others; None: it does not answer."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._directory.answering(host).fabric.peers()
        except (SkepError, TimeoutError):
            return None

    async def remove(self, caller: Caller, network: str) -> Accepted:
        """Delete a network nobody is plugged into; an app that needs it again makes it again.

        Hosts that do not answer now are tidied up by the reconciler when they do.
        """
        caller.must_change()
        async with self._database.read() as connection:
            rows = {row.name: row for row in await networks.every(connection, caller.tenant)}
            if network not in rows:
                raise NotFound(f"There is no network {network!r}; see 'skep net ls'.")
            if await networks.ports_of(connection, network=rows[network].id):
                raise Conflict(
                    f"Replicas are plugged into network {network!r}; see 'skep net ports {network}'."
                )
            answering = [row.name for row in await hosts.every(connection) if row.answers]
        run = await self._flows.start(
            "network.delete",
            {"network": rows[network].id, "hosts": answering},
            tenant=caller.tenant,
            title=f"delete network {network}",
        )
        return Accepted(run=run)

    async def list(self, caller: Caller) -> list[NetworkView]:
        async with self._database.read() as connection:
            rows = await networks.every(connection, caller.tenant)
            count = Counter(
                port.network_id for port in await networks.ports_of(connection, tenant=caller.tenant)
            )
        return [
            NetworkView(
                id=row.id,
                name=row.name,
                subnet=row.subnet,
                gateway=row.gateway,
                internal=row.internal,
                ports=count[row.id],
                created=rfc3339(row.created),
            )
            for row in rows
        ]
