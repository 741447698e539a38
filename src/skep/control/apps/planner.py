"""What an app is to become, against all that is there: the plan, or why it cannot be."""

from collections.abc import Callable

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.apps import autoscaling, strategies
from skep.control.apps.wanted import Wanted
from skep.control.callers import Caller
from skep.control.endpoints import acme, endpoints
from skep.control.networks import security_groups
from skep.control.plans import facts, homes, moves
from skep.control.plans.facts import AppRecord
from skep.control.plans.homes import home_of
from skep.control.plans.placing import assign
from skep.control.plans.planning import make_plan
from skep.control.plans.plans import Facts, Plan
from skep.control.plans.publications import clash
from skep.control.settings import Settings
from skep.control.tenants import quotas
from skep.control.tenants.quotas import Defaults
from skep.flow import Database
from skep.model.errors import Conflict
from skep.model.ids import AppId, TenantId
from skep.model.spec import AppSpec
from skep.store import apps, disks, groups, networks, releases
from skep.store import endpoints as stored_endpoints


class Planner:
    def __init__(self, database: Database, settings: Settings, new_id: Callable[[], str]) -> None:
        self._database = database
        self._settings = settings
        self._new_id = new_id

    async def plan(self, caller: Caller, wanted: Wanted) -> tuple[Plan, Facts, AppRecord | None]:
        settings, spec = self._settings, wanted.spec
        async with self._database.read() as connection:
            row = await apps.by_name(connection, caller.tenant, spec.name)
            record = await facts.load_app(connection, caller.tenant, spec.name) if row else None
            if row is not None and row.removing:
                raise Conflict(f"App {spec.name!r} is being removed: wait until it is gone.")
            await facts.check_files(connection, caller.tenant, spec, wanted.contents)
            acme.must_be_possible(spec, agreed=settings.acme_agreed, private=settings.acme_private)
            endpoints.must_have_certificates(
                spec, {row.name for row in await stored_endpoints.certificates(connection, caller.tenant)}
            )
            security_groups.must_exist(
                spec, {group.name for group in await groups.every(connection, caller.tenant)}
            )
            found = await facts.gather(
                connection, caller.tenant, record, AppId(self._new_id()), spec, wanted.images
            )
            found = msgspec.structs.replace(found, data=wanted.data)
            if wanted.destination is not None:
                of_app = await disks.every(connection, app=found.app)
                found = moves.going(found, spec, wanted.destination, of_app, keep_new=wanted.keep_new)
            cluster = await facts.cluster(connection, settings.limits.memory)
            more = sum(row.size for name, row in found.moving.items() if name not in found.disks)
            await self.check_quota(connection, caller, found.app, spec, more)
            await self._places_must_be_free(connection, spec, found, caller.tenant)

        beside = strategies.stand_ins(
            found, spec, rollback=wanted.rollback, force_recreate=wanted.force_recreate
        )
        if wanted.destination is not None:
            beside = []  # all of it is
        plan = make_plan(
            found,
            spec,
            new_id=self._new_id,
            placing=assign(found, spec, caller.tenant, cluster, settings.limits.memory, beside),
            default_disk=settings.default_disk,
            force_recreate=wanted.force_recreate,
        )
        plan = msgspec.structs.replace(
            plan, rollback=wanted.rollback, in_cluster=home_of(found, spec) is not None
        )
        if wanted.destination is not None:
            return (
                msgspec.structs.replace(plan, remarks=tuple(moves.remarks(plan, found, spec))),
                found,
                record,
            )
        strategies.must_be_checked(plan, spec)
        said = (*strategies.remarks(plan, spec), *homes.remarks(plan, found, spec))
        return msgspec.structs.replace(plan, remarks=said), found, record

    async def kept(self, caller: Caller, wanted: Wanted) -> Wanted:
        """With as many replicas as the services that scale by themselves have come to."""
        if not autoscaling.of(wanted.spec):
            return wanted
        async with self._database.read() as connection:
            row = await apps.by_name(connection, caller.tenant, wanted.spec.name)
            release = await releases.get(connection, row.release_id) if row and row.release_id else None
        spec = autoscaling.kept(wanted.spec, release.spec if release else None)
        base = wanted.base if row is None or wanted.base is not None else row.version
        return msgspec.structs.replace(wanted, spec=spec, base=base)

    async def check_quota(
        self, connection: AsyncConnection, caller: Caller, app: AppId, spec: AppSpec, more: int = 0
    ) -> None:
        """Asked when planning, and decided with the release's row: apps may be applied at the same moment."""
        defaults = Defaults(disk=self._settings.default_disk, memory=self._settings.limits.memory)
        await quotas.check_app(connection, caller.tenant, app, spec, defaults, more)

    async def _places_must_be_free(
        self, connection: AsyncConnection, spec: AppSpec, found: Facts, tenant: TenantId
    ) -> None:
        """An early answer; `release.claim` decides."""
        own = {service.id for service in found.services}
        others = [row for row in await networks.published_ports(connection) if row.service_id not in own]
        for name, service in spec.services.items():
            for port in service.ports:
                if any(clash(port, port.published, row, row.published) for row in others):
                    raise Conflict(
                        f"Service {name!r}: port {port.published}/{port.protocol} of the host is taken by "
                        "another app. Publish another one, or leave the number out to be given a free one."
                    )
        known = await stored_endpoints.every(connection)
        endpoints.must_be_free(spec, known, app=found.app, tenant=tenant)
