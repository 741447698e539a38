"""Telling every host of every endpoint.

A host that runs no replica of an endpoint's network gets the network all the same: so it serves the endpoint,
and losing one host loses none.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType

import msgspec
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.endpoints.endpoints import configured
from skep.control.host_directory import HostDirectory
from skep.control.ports import Desired
from skep.control.telling.peering import Peering
from skep.control.telling.serving import near
from skep.control.telling.telling import PATIENCE, Telling
from skep.flow import Database
from skep.model.edge import AppEndpoints
from skep.model.errors import Conflict, SkepError, Stale, Unsupported
from skep.model.host import PeersInForce
from skep.model.ids import AppId, HostName, NetworkId, ServiceId, TenantId
from skep.store import acme, clusters, endpoints, replicas
from skep.store.endpoints import EndpointRow
from skep.store.replicas import ReplicaRow

_FORGETTING = 6
"""Passes after which it is looked anew whether hosts have the networks they need."""

log = structlog.get_logger("skep.edges")

NOBODY = TenantId("")
NOTHING = AppEndpoints(app=AppId(""), tenant=NOBODY, generation=0).digest


class EndpointMap:
    """The endpoints of one app as the rows have them; `hosts` are all there are.

    `elsewhere`: what is told to clusters, by host; all others hear the same.  A cluster leads to what is in
    it: of other apps it hears nothing.
    """

    def __init__(
        self,
        told: AppEndpoints,
        hosts: Collection[HostName] = (),
        elsewhere: Mapping[HostName, AppEndpoints] = MappingProxyType({}),
    ) -> None:
        self.hosts = hosts
        self._told = told
        self._elsewhere = elsewhere
        self._digest = told.digest
        self._digests = {host: one.digest for host, one in elsewhere.items()}

    def digest_from(self, host: HostName) -> str:
        return self._digests.get(host, self._digest)

    def seen_from(self, host: HostName, at_least: int = 0) -> AppEndpoints:
        told = self._elsewhere.get(host, self._told)
        return msgspec.structs.replace(told, generation=max(told.generation, at_least))

    def networks_from(self, host: HostName) -> set[NetworkId]:
        """Those on which somebody answers."""
        told = self._elsewhere.get(host, self._told)
        return {server.network for one in told.endpoints for server in one.servers}


class Edges(Telling[AppId, EndpointMap]):
    """One per process."""

    subject = "edges"
    nothing = NOTHING
    needless = (Stale,)

    def __init__(
        self,
        database: Database,
        directory: HostDirectory,
        desired: Desired,
        peering: Peering,
    ) -> None:
        super().__init__(database, directory)
        self._desired = desired
        self._peering = peering
        self._turns: defaultdict[HostName, asyncio.Lock] = defaultdict(asyncio.Lock)
        """A host is told of one app after the other: they may need the same networks."""
        self._ensured: dict[HostName, set[NetworkId]] = {}
        self._passes = 0
        self._refused: dict[HostName, str] = {}
        """Hosts that cannot serve endpoints, and why."""

    async def apps_of(self, services: Collection[ServiceId]) -> Collection[AppId]:
        """Those of them that have endpoints."""
        async with self._database.read() as connection:
            return await endpoints.apps_of(connection, services)

    def trouble(self) -> dict[HostName, str]:
        """Hosts that serve no endpoints, with the reason, as far as this process has heard."""
        return dict(self._refused)

    async def reconcile(self) -> None:
        self._passes += 1
        for name in self._directory.names():
            if self._passes % _FORGETTING == 0 or self._directory.why_silent(name):
                self._ensured.pop(name, None)
        await super().reconcile()

    async def _catch_up(
        self, name: HostName, there: dict[AppId, PeersInForce], found: dict[AppId, EndpointMap]
    ) -> None:
        await super()._catch_up(name, there, found)
        try:
            async with asyncio.timeout(PATIENCE), self._turns[name]:
                needed = {network for one in found.values() for network in one.networks_from(name)}
                await self._ensure(name, needed)
        except (SkepError, TimeoutError) as error:
            log.warning("edges.unreached", host=name, error=str(error))

    async def _maps(
        self, connection: AsyncConnection, time: int, chosen: Collection[AppId] | None
    ) -> dict[AppId, EndpointMap]:
        """With an empty one for a chosen app that has none any more, if a host may know of it."""
        found: dict[AppId, list[EndpointRow]] = {}
        for row in await endpoints.every(connection):
            if chosen is None or row.app_id in chosen:
                found.setdefault(row.app_id, []).append(row)
        names = self._directory.names()
        told = await _configured(connection, time, found, names) if found else {}
        gone = [app for app in chosen or () if app not in found and self._knows(app)]
        return told | {app: EndpointMap(_nothing(app, time), names) for app in gone}

    def _empty(self, key: AppId) -> EndpointMap:
        return EndpointMap(_nothing(key, 0))

    async def _ask(self, name: HostName) -> dict[AppId, PeersInForce]:
        return await self._directory.on(name).edge.endpoints()

    async def _set(self, name: HostName, place: EndpointMap, at_least: int) -> None:
        """A host whose port is taken, or that is to have no edge, is no reason to stop: it is said."""
        async with self._turns[name]:
            await self._ensure(name, place.networks_from(name))
            try:
                there = await self._directory.answering(name)
                await there.edge.set_endpoints(place.seen_from(name, at_least))
            except Stale:
                raise
            except (Conflict, Unsupported) as error:
                if self._refused.get(name) != error.message:
                    log.warning("edges.refused", host=name, error=error.message)
                self._refused[name] = error.message
            else:
                self._refused.pop(name, None)

    async def _ensure(self, name: HostName, needed: Iterable[NetworkId]) -> None:
        """Have these networks there; others hear that the host is on them now."""
        needed = set(needed) - self._ensured.get(name, set())
        if not needed:
            return
        fabric = (await self._directory.answering(name)).fabric
        lacking = sorted(needed - await fabric.networks())
        for network in lacking:
            await fabric.ensure_network(await self._desired.network(network))
            self._peering.forget(name, network)
        if lacking:
            await self._peering.announce(lacking)
        self._ensured.setdefault(name, set()).update(needed)

    def _knows(self, app: AppId) -> bool:
        return any(known == app for _, known in self._told)


def _nothing(app: AppId, generation: int) -> AppEndpoints:
    return AppEndpoints(app=app, tenant=NOBODY, generation=generation)


async def _configured(
    connection: AsyncConnection,
    time: int,
    found: Mapping[AppId, list[EndpointRow]],
    names: Collection[HostName],
) -> dict[AppId, EndpointMap]:
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
    standing = {row.host for row in await clusters.every(connection)}

    def seen_from(app: AppId, rows: list[EndpointRow], home: str) -> AppEndpoints:
        tenant = rows[0].tenant_id
        return configured(
            app,
            tenant,
            time,
            rows,
            near(members.get(app, []), home, standing),
            places,
            digests.get(tenant, {}),
            {host: proof for (owner, host), proof in proofs.items() if owner == tenant},
            standing,
        )

    def elsewhere(app: AppId, rows: list[EndpointRow]) -> dict[HostName, AppEndpoints]:
        there = {row.host for row in members.get(app, ())}
        return {
            host: seen_from(app, rows, host) if host in there else _nothing(app, time) for host in standing
        }

    return {
        app: EndpointMap(seen_from(app, rows, ""), names, elsewhere(app, rows)) for app, rows in found.items()
    }
