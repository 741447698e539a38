"""Telling every host of every endpoint: at once by whoever changes who serves, and again by the reconciler.

As with peers (`peering.py`) no number is kept of what was told: a generation is the time by the database's
clock before the rows were read.  A host that runs no replica of an endpoint's network gets the network all
the same: so it serves the endpoint, and losing one host loses none.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.endpoints import configured
from skep.control.host_directory import HostDirectory
from skep.control.peering import Peering
from skep.control.ports import Desired
from skep.control.telling import generation
from skep.flow import Database
from skep.model.edge import AppEndpoints
from skep.model.errors import Conflict, SkepError, Stale, Unsupported
from skep.model.host import PeersInForce
from skep.model.ids import AppId, HostName, NetworkId, ServiceId, TenantId
from skep.store import acme, endpoints, replicas
from skep.store.endpoints import EndpointRow
from skep.store.replicas import ReplicaRow

PATIENCE = 5.0
"""Seconds that a change waits for a host to take it."""

_FORGETTING = 6
"""Passes after which it is looked anew whether hosts have the networks they need."""

log = structlog.get_logger("skep.edges")

Known = dict[AppId, PeersInForce]
NOBODY = TenantId("")


class Edges:
    """A `traffic.Leader`; one per process.  What hosts were told last is remembered."""

    def __init__(
        self,
        database: Database,
        directory: HostDirectory,
        desired: Desired,
        peering: Peering,
    ) -> None:
        self._database = database
        self._directory = directory
        self._desired = desired
        self._peering = peering
        self._told: dict[tuple[HostName, AppId], str] = {}
        self._ensured: dict[HostName, set[NetworkId]] = {}
        self._passes = 0
        self._refused: dict[HostName, str] = {}
        """Hosts that cannot serve endpoints, and why."""

    async def announce(self, services: Collection[ServiceId]) -> Collection[HostName]:
        """Make every host lead requests as the rows have it now.  Answers those that did not hear it."""
        async with self._database.read() as connection:
            concerned = await endpoints.apps_of(connection, services)
        return await self.tell(concerned)

    async def tell(self, apps: Collection[AppId]) -> Collection[HostName]:
        found = await self._read(apps)
        names = self._directory.names()
        outcomes = await asyncio.gather(*(self._try(name, found) for name in names))
        return [name for name, heard in zip(names, outcomes, strict=True) if not heard]

    def trouble(self) -> dict[HostName, str]:
        """Hosts that serve no endpoints, with the reason, as far as this process has heard."""
        return dict(self._refused)

    async def reconcile(self) -> None:
        """Tell every host what it does not know, whoever told it last."""
        names = [name for name in self._directory.names() if not self._directory.why_silent(name)]
        self._passes += 1
        for name in self._directory.names():
            if self._passes % _FORGETTING == 0 or name not in names:
                self._ensured.pop(name, None)
        known = dict(zip(names, await asyncio.gather(*map(self._known, names)), strict=True))
        found = await self._read(None)
        await asyncio.gather(
            *(self._catch_up(name, there, found) for name, there in known.items() if there is not None)
        )

    async def _catch_up(self, name: HostName, there: Known, found: dict[AppId, AppEndpoints]) -> None:
        every = found | {
            app: AppEndpoints(app=app, tenant=NOBODY, generation=0) for app in there.keys() - found.keys()
        }
        lacking = {}
        for app, told in every.items():
            force = there.get(app)
            digest = force.digest if force else NOTHING
            self._told[name, app] = digest
            if digest != told.digest:
                lacking[app] = _younger(told, force)
        if lacking:
            await self._try(name, lacking)
        if found:
            await self._try_networks(name, found.values())

    async def _known(self, name: HostName) -> Known | None:
        """None: the host does not answer now, or is too old to know of endpoints."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._directory.on(name).edge.endpoints()
        except (SkepError, TimeoutError) as error:
            log.warning("edges.unknown", host=name, error=str(error))
            return None

    async def _try(self, name: HostName, found: dict[AppId, AppEndpoints]) -> bool:
        """Whether the host has it, or needs not have it."""
        wanted = [one for app, one in found.items() if self._told.get((name, app), NOTHING) != one.digest]
        try:
            async with asyncio.timeout(PATIENCE):
                await self._ensure(name, wanted)
                for one in wanted:
                    await self._tell(name, one)
        except (SkepError, TimeoutError) as error:
            log.warning("edges.untold", host=name, error=str(error))
            return False
        return True

    async def _try_networks(self, name: HostName, found: Iterable[AppEndpoints]) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                await self._ensure(name, found)
        except (SkepError, TimeoutError) as error:
            log.warning("edges.unreached", host=name, error=str(error))

    async def _tell(self, name: HostName, told: AppEndpoints) -> None:
        """A host whose port is taken, or that is to have no edge, is no reason to stop: it is said."""
        try:
            await self._directory.answering(name).edge.set_endpoints(told)
        except Stale:
            return  # somebody told it something younger meanwhile
        except (Conflict, Unsupported) as error:
            if self._refused.get(name) != error.message:
                log.warning("edges.refused", host=name, error=error.message)
            self._refused[name] = error.message
        else:
            self._refused.pop(name, None)
        self._told[name, told.app] = told.digest

    async def _ensure(self, name: HostName, wanted: Iterable[AppEndpoints]) -> None:
        """The networks on which somebody answers; others hear that the host is there now."""
        needed = {server.network for app in wanted for one in app.endpoints for server in one.servers}
        needed -= self._ensured.get(name, set())
        if not needed:
            return
        fabric = self._directory.answering(name).fabric
        lacking = sorted(needed - await fabric.networks())
        for network in lacking:
            await fabric.ensure_network(await self._desired.network(network))
            self._peering.forget(name, network)
        if lacking:
            await self._peering.announce(lacking)
        self._ensured.setdefault(name, set()).update(needed)

    async def _read(self, apps: Collection[AppId] | None) -> dict[AppId, AppEndpoints]:
        """Of the chosen apps (None: of all that have any)."""
        async with self._database.read() as connection:
            time = await generation(connection)
            found: dict[AppId, list[EndpointRow]] = {}
            for row in await endpoints.every(connection):
                if apps is None or row.app_id in apps:
                    found.setdefault(row.app_id, []).append(row)
            told = await _configured(connection, time, found) if found else {}
        gone = {
            app: AppEndpoints(app=app, tenant=NOBODY, generation=time)
            for app in apps or ()
            if app not in found and self._knows(app)
        }
        return told | gone

    def _knows(self, app: AppId) -> bool:
        return any(known == app for _, known in self._told)


async def _configured(
    connection: AsyncConnection, time: int, found: Mapping[AppId, list[EndpointRow]]
) -> dict[AppId, AppEndpoints]:
    """Many apps cost as many queries as one."""
    only = next(iter(found)) if len(found) == 1 else None
    members: dict[AppId, list[ReplicaRow]] = {}
    for row in await replicas.find(connection, app=only):
        members.setdefault(row.app_id, []).append(row)
    places = await endpoints.places(connection, only)
    digests: dict[TenantId, dict[str, str]] = {}
    for one in await endpoints.certificates(connection):
        digests.setdefault(one.tenant_id, {})[one.name] = one.digest
    proofs = await acme.proofs(connection)
    return {
        app: configured(
            app,
            rows[0].tenant_id,
            time,
            rows,
            members.get(app, []),
            places,
            digests.get(rows[0].tenant_id, {}),
            {host: proof for (tenant, host), proof in proofs.items() if tenant == rows[0].tenant_id},
        )
        for app, rows in found.items()
    }


NOTHING = AppEndpoints(app=AppId(""), tenant=NOBODY, generation=0).digest


def _younger(told: AppEndpoints, there: PeersInForce | None) -> AppEndpoints:
    """What a host has was asked before the rows were read: then these are newer, whatever the clock says."""
    if there is None or told.generation > there.generation:
        return told
    return AppEndpoints(
        app=told.app, tenant=told.tenant, generation=there.generation + 1, endpoints=told.endpoints
    )
