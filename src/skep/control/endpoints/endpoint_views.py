"""Endpoints of a tenant, as the API shows them: list, show, who asked for what."""

import asyncio
from collections.abc import Iterable

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.callers import Caller
from skep.control.clock import Now, rfc3339
from skep.control.endpoints import acme
from skep.control.endpoints.edges import Edges
from skep.control.host_directory import HostDirectory
from skep.control.plans.homing import in_cluster
from skep.control.settings import Settings
from skep.control.telling.serving import serving
from skep.flow import Database
from skep.model.edge import AccessLine, EndpointTraffic
from skep.model.endpoints import ACME
from skep.model.errors import NotFound, SkepError, Unsupported
from skep.model.ids import EndpointId, HostName, TenantId
from skep.model.views.endpoints import AccessView, EndpointTrafficView, EndpointView
from skep.store import acme as acme_orders
from skep.store import apps, clusters, endpoints, replicas
from skep.store.endpoints import EndpointRow
from skep.store.replicas import ReplicaRow

PATIENCE = 5.0
MOST_LINES = 10_000

log = structlog.get_logger("skep.endpoints")


class Endpoints:
    """What hosts counted and wrote down is asked of all that answer."""

    def __init__(
        self,
        database: Database,
        directory: HostDirectory,
        edges: Edges | None,
        settings: Settings,
        now: Now,
    ) -> None:
        self._now = now
        self._database = database
        self._directory = directory
        self._edges = edges
        self._settings = settings

    async def access(self, caller: Caller, app: str, tail: int = 100) -> list[AccessView]:
        """The last requests for the app's endpoints, of all hosts that answer, oldest first.

        Raises:
            NotFound: there is no such app.
            Unsupported: it is in a cluster, where nobody tells of them.
        """
        tail = max(0, min(tail, MOST_LINES))
        found = await self.list(caller, app)
        await self._must_be_told(EndpointId(one.id) for one in found)
        asked = await asyncio.gather(*(self._lines(one, tail) for one in found))
        lines = sorted((line for lines in asked for line in lines), key=lambda line: line.time)
        return lines[-tail:] if tail else []

    async def _must_be_told(self, asked: Iterable[EndpointId]) -> None:
        ids = set(asked)
        async with self._database.read() as connection:
            rows = [row for row in await endpoints.every(connection) if row.id in ids]
            zones = {one.host: one.zone for one in await clusters.every(connection)}
            members = [
                one
                for service in {row.service_id for row in rows}
                for one in await replicas.of_service(connection, service)
            ]
        if members and all(one.host in zones for one in members):
            raise Unsupported(
                f"Zone {zones[members[0].host]!r} is a Kubernetes cluster: what leads requests into it tells "
                "skep nothing of them. Its own log has them, that of the ingress controller or the gateway."
            )

    async def _lines(self, one: EndpointView, tail: int) -> list[AccessView]:
        answers = await asyncio.gather(
            *(self._ask(name, EndpointId(one.id), tail) for name in self._directory.names())
        )
        return [_access(one, line) for lines in answers for line in lines]

    async def _ask(self, name: HostName, endpoint: EndpointId, tail: int) -> list[AccessLine]:
        try:
            async with asyncio.timeout(PATIENCE):
                there = await self._directory.answering(name)
                return await there.edge.access(endpoint, tail)
        except (SkepError, TimeoutError) as error:
            log.warning("access.unknown", host=name, error=str(error))
            return []

    async def _traffic(self) -> list[EndpointTraffic]:
        answers = await asyncio.gather(*(self._count(name) for name in self._directory.names()))
        return [one for counted in answers for one in counted]

    async def _count(self, name: HostName) -> list[EndpointTraffic]:
        try:
            async with asyncio.timeout(PATIENCE):
                there = await self._directory.answering(name)
                return await there.edge.traffic()
        except (SkepError, TimeoutError) as error:
            log.warning("traffic.unknown", host=name, error=str(error))
            return []

    def _trouble(self) -> str:
        """What keeps hosts from serving endpoints, if anything."""
        found = self._edges.trouble() if self._edges is not None else {}
        return "; ".join(f"{host}: {reason}" for host, reason in sorted(found.items()))

    async def list(self, caller: Caller, app: str | None = None) -> list[EndpointView]:
        """Raises NotFound: there is no such app."""
        async with self._database.read() as connection:
            owned = {row.id: row for row in await apps.every(connection) if caller.sees(row.tenant_id)}
            known = {key: row.name for key, row in owned.items()}
            if app is not None and app not in known.values():
                raise NotFound(f"There is no app {app!r}; see 'skep apps'.")
            rows = await endpoints.every(connection, tenant=caller.tenant)
            rows = [row for row in rows if row.app_id in known and app in (None, known[row.app_id])]
            with_any = sorted({row.app_id for row in rows})
            names = {
                one.id: one.name for app in with_any for one in await replicas.services_of(connection, app)
            }
            states = await _states(connection, caller.tenant, self._now())
            members = {app: await replicas.find(connection, app=app) for app in with_any}
            standing = {one.host: one.zone for one in await clusters.every(connection)}
            led = {app: await in_cluster(connection, owned[app], members[app], standing) for app in with_any}
        counted = await self._traffic() if rows else []
        return [
            EndpointView(
                id=row.id,
                app=known[row.app_id],
                service=names.get(row.service_id, ""),
                url=url(row, self._settings, in_cluster=led[row.app_id]),
                host=row.host,
                path=row.path,
                port=row.spec.port or 80,
                tls=row.spec.tls or "",
                sticky=row.spec.sticky,
                rate=row.spec.rate,
                max_connections=row.spec.max_connections,
                replicas=tuple(one.name for one in serving(_of(row, members[row.app_id]))),
                traffic=_sums(row.id, counted),
                trouble=self._trouble(),
                certificate=states.get(row.host, "ordering") if row.spec.tls == ACME else "",
                created=rfc3339(row.created),
            )
            for row in rows
        ]


async def _states(connection: AsyncConnection, tenant: TenantId, now: float) -> dict[str, str]:
    """Of the certificates by ACME, by host name."""
    held = {row.name: row.expires for row in await endpoints.certificates(connection, tenant)}
    orders = await acme_orders.orders(connection, tenant)
    return {row.host: acme.state(row, held.get(row.host), now) for row in orders}


def _of(row: EndpointRow, members: Iterable[ReplicaRow]) -> list[ReplicaRow]:
    """Those of the service that it leads to."""
    return [one for one in members if one.service_id == row.service_id]


def url(row: EndpointRow, settings: Settings, *, in_cluster: bool = False) -> str:
    """What leads requests into a cluster does so at the usual ports, as far as skep knows."""
    scheme, port, usual = (
        ("https", settings.edge_https, 443) if row.spec.tls else ("http", settings.edge_http, 80)
    )
    port = usual if in_cluster else port
    return f"{scheme}://{row.host}{'' if port == usual else f':{port}'}{row.path}"


def _sums(endpoint: EndpointId, counted: Iterable[EndpointTraffic]) -> tuple[EndpointTrafficView, ...]:
    """By revision, over all hosts."""
    by_revision: dict[int, list[EndpointTraffic]] = {}
    for one in counted:
        if one.endpoint == endpoint and one.revision:
            by_revision.setdefault(one.revision, []).append(one)
    return tuple(
        EndpointTrafficView(
            revision=revision,
            requests=sum(part.requests for part in parts),
            client_errors=sum(part.client_errors for part in parts),
            server_errors=sum(part.server_errors for part in parts),
            connection_errors=sum(part.connection_errors for part in parts),
            sessions=sum(part.sessions for part in parts),
            response_time=_mean(parts),
        )
        for revision, parts in sorted(by_revision.items())
    )


def _mean(parts: list[EndpointTraffic]) -> float:
    total = sum(part.requests for part in parts)
    return sum(part.response_time * part.requests for part in parts) / total if total else 0.0


def _access(one: EndpointView, line: AccessLine) -> AccessView:
    return AccessView(
        time=rfc3339(line.time),
        endpoint=f"{one.host}{one.path}",
        client=line.client,
        method=line.method,
        url=f"{line.host or one.host}{line.path}",
        status=line.status,
        milliseconds=line.milliseconds,
        size=line.size,
        replica=line.replica,
        revision=line.revision,
    )
