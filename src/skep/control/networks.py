"""Networks of a tenant and the ports on them."""

from collections import Counter
from ipaddress import IPv4Address

from skep.control.callers import Caller
from skep.control.clock import rfc3339
from skep.flow import Database, FlowEngine
from skep.model.errors import Conflict, NotFound
from skep.model.views import Accepted, NetworkView, PortView
from skep.store import apps, hosts, networks, replicas


class Networks:
    def __init__(self, database: Database, flows: FlowEngine) -> None:
        self._database = database
        self._flows = flows

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
