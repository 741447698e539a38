"""Services that scale by what they do (`x-skep.scale`), looked at by the process that leads.

What was seen lives in memory: who begins to lead begins with the opinion that all is right as it is.
"""

import asyncio
from collections.abc import Callable, Mapping

import msgspec
import structlog

from skep.control.apps import autoscaling
from skep.control.apps.autoscaling import Opinion
from skep.control.apps.measuring import Look, Measuring, seen
from skep.control.apps.scaling import Scaling
from skep.control.host_directory import HostDirectory
from skep.control.reconcilers.backoff import Backoff
from skep.flow import Database, FlowEngine
from skep.model.errors import SkepError
from skep.model.ids import AppId, EndpointId, HostName, ServiceId
from skep.model.names import ServiceName, TenantName
from skep.model.spec import Autoscale
from skep.store import apps, endpoints, releases, replicas, tenants
from skep.store.apps import AppRow
from skep.store.endpoints import EndpointRow
from skep.store.releases import ReleaseRow
from skep.store.replicas import ReplicaRow

INTERVAL = 5.0
"""Seconds between two looks."""
SOON = 1.0
"""Between two looks whether a request waits for a service that is asleep."""

log = structlog.get_logger("skep.autoscaler")


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """A service that scales by itself, as its rows have it."""

    app: AppRow
    release: ReleaseRow
    service: ServiceId
    name: ServiceName
    policy: Autoscale
    members: tuple[ReplicaRow, ...]
    endpoints: tuple[EndpointRow, ...]

    @property
    def replicas(self) -> int:
        return self.release.spec.services[self.name].replicas


class Autoscaler:
    def __init__(
        self,
        *,
        database: Database,
        flows: FlowEngine,
        directory: HostDirectory,
        scaling: Scaling,
        monotonic: Callable[[], float],
    ) -> None:
        self._database = database
        self._flows = flows
        self._directory = directory
        self._scaling = scaling
        self._monotonic = monotonic
        self._measuring = Measuring(directory, monotonic)
        self._before: Look | None = None
        self._opinions: dict[ServiceId, list[Opinion]] = {}
        self._called: dict[ServiceId, float] = {}
        self._attempts = Backoff(monotonic)
        self._asleep: set[EndpointId] = set()

    async def run(self) -> None:
        """Pass after pass, until cancelled.  A pass that fails is logged and tried again."""
        while True:
            try:
                await self.look()
                await self._rest()
            except Exception:
                log.exception("autoscaler.failed")
                await asyncio.sleep(INTERVAL)

    async def _rest(self) -> None:
        """Until it is time, or a request waits for a service that is asleep."""
        for _ in range(int(INTERVAL / SOON)):
            await asyncio.sleep(SOON)
            if self._asleep and await self._measuring.waited_for(self._asleep, self._hosts()):
                return

    def _hosts(self) -> list[HostName]:
        return [name for name in self._directory.names() if not self._directory.why_silent(name)]

    async def look(self) -> None:
        """One pass: look, think, and start what is to be done."""
        watched = await self._watched()
        self._forget({one.service for one in watched})
        if not watched:
            self._before = None
            return
        self._asleep = {row.id for one in watched if one.replicas == 0 for row in one.endpoints}
        hosts = self._hosts()
        asked = hosts if any(one.endpoints for one in watched) else []
        now = await self._measuring.look([row for one in watched for row in one.members], asked)
        before, self._before = self._before, now
        busy = {run.labels.get("app", "") for run in await self._flows.list(active=True, limit=100_000)}
        wanted: dict[AppId, dict[str, Opinion]] = {}
        for one in watched:
            found = await self._think(one, before, now, hosts)
            if found.replicas != one.replicas and one.app.id not in busy:
                wanted.setdefault(one.app.id, {})[one.name] = found
        rows = {one.app.id: one.app for one in watched}
        self._attempts.keep_only(wanted.keys())
        for app, opinions in wanted.items():
            await self._scale(rows[app], opinions)

    async def _think(self, one: Watched, before: Look | None, now: Look, hosts: list[HostName]) -> Opinion:
        service = one.release.spec.services[one.name]
        found = seen(service, one.members, one.endpoints, before, now)
        called = False
        if found.requests or one.service not in self._called:
            self._called[one.service] = now.time
        if one.replicas == 0:
            ids = [row.id for row in one.endpoints]
            called = any(row.waiting and row.endpoint in ids for row in now.traffic.values())
            called = called or await self._measuring.called(ids, hosts, one.app.updated)
        quiet = now.time - self._called[one.service] if one.endpoints else None
        found = msgspec.structs.replace(found, quiet=quiet, called=called)
        held = self._opinions.setdefault(one.service, [Opinion(time=now.time, replicas=one.replicas)])
        held.append(autoscaling.opinion(one.policy, found, now.time))
        oldest = now.time - max(one.policy.up_cooldown, one.policy.down_cooldown)
        held[:] = [each for each in held if each.time >= oldest] or held[-1:]
        return autoscaling.decide(one.policy, one.replicas, held, now.time)

    async def _scale(self, app: AppRow, wanted: Mapping[str, Opinion]) -> None:
        if not self._attempts.ready(app.id):
            return
        self._attempts.attempted(app.id)
        counts = {name: one.replicas for name, one in wanted.items()}
        why = "; ".join(dict.fromkeys(one.why for one in wanted.values() if one.why)) or "its bounds changed"
        async with self._database.read() as connection:
            tenant = await tenants.get(connection, app.tenant_id)
        try:
            name = tenant.name if tenant else TenantName("")
            accepted = await self._scaling.autoscale(app, name, counts, why)
            log.info("autoscaler.scaled", app=app.id, counts=counts, why=why, run=accepted.run)
        except SkepError as error:
            log.warning("autoscaler.refused", app=app.id, counts=counts, error=error.message)

    async def _watched(self) -> list[Watched]:
        async with self._database.read() as connection:
            scaled = {
                row.app_id: row for row in await releases.current(connection) if autoscaling.of(row.spec)
            }
            if not scaled:
                return []
            rows = {row.id: row for row in await apps.every(connection) if row.id in scaled}
            services = {app: await replicas.services_of(connection, app) for app in rows}
            members = [row for app in rows for row in await replicas.find(connection, app=app)]
            reached = [row for app in rows for row in await endpoints.every(connection, app=app)]
        return [
            Watched(
                app=app,
                release=scaled[app.id],
                service=service.id,
                name=ServiceName(service.name),
                policy=policy,
                members=tuple(
                    row
                    for row in members
                    if row.service_id == service.id and row.desired == "running" and not row.stand_in
                ),
                endpoints=tuple(row for row in reached if row.service_id == service.id),
            )
            for app in rows.values()
            if not app.removing
            for service in services[app.id]
            if (policy := autoscaling.of(scaled[app.id].spec).get(ServiceName(service.name))) is not None
        ]

    def _forget(self, services: set[ServiceId]) -> None:
        self._opinions = {key: value for key, value in self._opinions.items() if key in services}
        self._called = {key: value for key, value in self._called.items() if key in services}
