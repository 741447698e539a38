"""Apps: plan, apply, stop, start, restart, remove, look.

Every change becomes a run of a flow made for it (`flows/documents.py`); this module decides and starts it.
One change of an app at a time: a second one is refused while a run of the app is active (`changes.py`).
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.apps import app_views, changes, explaining, histories, retention
from skep.control.apps.planner import Planner
from skep.control.apps.release_diff import differences, shape
from skep.control.apps.validation import check
from skep.control.apps.wanted import LONGEST_NOTE, Wanted, settle
from skep.control.callers import Caller, Role
from skep.control.clock import Now
from skep.control.flows import documents
from skep.control.plans import facts
from skep.control.plans.facts import AppRecord
from skep.control.plans.plans import Facts, Plan
from skep.control.settings import Settings
from skep.flow import Database, FlowEngine
from skep.model.errors import Conflict, InvalidInput, NotFound
from skep.model.ids import AppId
from skep.model.spec import AppSpec
from skep.model.views.apps import AppDetail, AppView
from skep.model.views.base import Accepted
from skep.model.views.plans import PlanDetail
from skep.store import apps, releases, replicas, tenants
from skep.store.apps import AppRow
from skep.store.releases import ReleaseRow
from skep.store.replicas import ReplicaRow


class Apps:
    def __init__(
        self,
        database: Database,
        flows: FlowEngine,
        settings: Settings,
        now: Now,
        new_id: Callable[[], str],
    ) -> None:
        self._database = database
        self._flows = flows
        self._settings = settings
        self._now = now
        self._planner = Planner(database, settings, new_id)

    async def show(self, caller: Caller, app: str) -> AppDetail:
        async with self._database.read() as connection:
            record = await facts.load_app(connection, caller.tenant, app)
            (seen,) = await app_views.scenes(connection, [record.app])
            return AppDetail(
                app=await self._view(connection, seen),
                spec=record.release.spec if record.release else None,
                replicas=tuple(await app_views.replicas_of(connection, seen)),
                virtual_ips=await app_views.virtual_ips_of(connection, seen),
            )

    async def plan(self, caller: Caller, spec: AppSpec) -> PlanDetail:
        """What `apply` would do, and what that means; changes nothing."""
        check(spec, caller)
        wanted = await self._planner.kept(caller, settle(spec))
        plan, found, record = await self._planner.plan(caller, wanted)
        settings, default_memory = self._settings, self._settings.limits.memory
        async with self._database.read() as connection:
            candidates = await facts.candidates(connection, default_memory)
            builder = await facts.build_host(connection)
        shown = app_views.plan(plan, found, wanted.spec)
        current = record.release if record else None
        return PlanDetail(
            **{name: getattr(shown, name) for name in shown.__struct_fields__},
            mark=_mark(plan, found, wanted.spec, record),
            differences=differences(shape(current.spec, current.images), shape(wanted.spec, plan.images))
            if current
            else (),
            services=tuple(explaining.services(plan, found, wanted.spec)),
            order=explaining.order(documents.apply(plan, wanted.spec, builder)) if not plan.empty else (),
            peak=tuple(
                explaining.peak(plan, wanted.spec, candidates, default_memory, free=caller.role is Role.ADMIN)
            ),
            resources=explaining.resources(
                found.current, wanted.spec, default_memory, settings.price_cpu_hour, settings.price_gib_hour
            ),
        )

    async def apply(
        self,
        caller: Caller,
        spec: AppSpec,
        *,
        force_recreate: bool = False,
        note: str = "",
        mark: str = "",
    ) -> Accepted:
        """Release a new revision of the app; the `note` says why, to whom looks at its releases.

        `mark`: of the plan that this is to be, no other.

        Raises:
            InvalidInput: everything that is wrong with the spec.  Exhausted: beyond the tenant's quota.
            Conflict: another run is changing the app, or a port is taken.
        """
        caller.must_change()
        check(spec, caller)
        if len(note) > LONGEST_NOTE:
            raise InvalidInput(f"The note has {len(note)} characters; {LONGEST_NOTE} are the most.")
        if mark:
            explaining.in_force_when(mark)
        wanted = msgspec.structs.replace(
            settle(spec), force_recreate=force_recreate, note=note, mark=mark, keep_scale=True
        )

        async def unchanged() -> Wanted:
            return wanted

        return await self.release(caller, spec.name, unchanged)

    async def release(self, caller: Caller, app: str, think: Callable[[], Awaitable[Wanted]]) -> Accepted:
        """Make the app what is thought out for it, if it was changed meanwhile anew.

        Raises: as `apply`.
        """
        caller.must_change()

        async def attempt() -> Accepted:
            wanted = await think()
            if wanted.keep_scale:
                wanted = await self._planner.kept(caller, wanted)
            plan, found, record = await self._planner.plan(caller, wanted)
            if record is not None:
                await changes.require_quiet(self._flows, record.app)
            if wanted.mark not in ("", _mark(plan, found, wanted.spec, record)):
                raise await self._stale(wanted, record)
            if wanted.base not in (None, plan.base_version):
                raise changes.Overtaken
            if plan.empty:
                return Accepted(run=None, message=f"App {app!r} is up to date.")
            return await self._start_apply(caller, wanted, plan, record)

        return await changes.settled(app, attempt)

    async def _stale(self, wanted: Wanted, record: AppRecord | None) -> Conflict:
        """Why a plan that was made before does not hold any more."""
        version, revision = explaining.in_force_when(wanted.mark)
        app = wanted.spec.name
        if record is None:
            return Conflict(f"The plan is stale: there is no app {app!r} any more. Plan again.")
        async with self._database.read() as connection:
            told = histories.since(await releases.of_app(connection, record.app.id), revision)
        if told:
            return Conflict(f"The plan is stale: since then app {app!r} became {told}. Plan again.")
        if version != record.app.version:
            return Conflict(f"The plan is stale: replicas of app {app!r} were moved since. Plan again.")
        return Conflict(
            f"The plan is stale: app {app!r} is as it was, but what it would take to change it is not: "
            "images were fetched or made, or replicas stopped or started. Plan again."
        )

    async def remove(self, caller: Caller, app: str, *, volumes: bool = False) -> Accepted:
        """Remove the app.  Its volumes stay (and are used again by an app of that name) unless `volumes`.

        Raises:
            Conflict: another run is changing the app, or another app uses its networks or volumes.
        """
        caller.must_change()

        async def attempt() -> Accepted:
            async with self._database.read() as connection:
                record = await facts.load_app(connection, caller.tenant, app)
                await facts.check_shared(connection, record.app, volumes=volumes)
                if not volumes:
                    await facts.check_settled(connection, record.app)
            row = msgspec.structs.replace(record.app, removing=True, remove_volumes=volumes)
            return await self.start_removal(row)

        return await changes.settled(app, attempt)

    async def start_removal(self, app: AppRow) -> Accepted:
        """The run that removes the app; also called for one whose removal did not come to its end.

        Raises:
            Conflict: another run is changing the app.
            Overtaken: it was changed since the row was read.
        """
        async with self._database.read() as connection:
            document = await self._removal(connection, app)

        async def mark(transaction: AsyncConnection) -> None:
            await changes.claim(transaction, self._flows, app)
            marked = msgspec.structs.replace(app, removing=True, version=app.version + 1, updated=self._now())
            await apps.save(transaction, marked)

        return await self._run(app, document, f"remove {app.name}", mark)

    async def stop(self, caller: Caller, app: str, service: str | None = None) -> Accepted:
        return await self._switch(caller, app, service, "stop", documents.switch_off)

    async def start(self, caller: Caller, app: str, service: str | None = None) -> Accepted:
        return await self._switch(caller, app, service, "start", documents.switch_on)

    async def restart(self, caller: Caller, app: str, service: str | None = None) -> Accepted:
        return await self._switch(caller, app, service, "restart", documents.restart)

    async def list(self, caller: Caller) -> list[AppView]:
        async with self._database.read() as connection:
            rows = await apps.every(connection, caller.tenant)
            return [await self._view(connection, seen) for seen in await app_views.scenes(connection, rows)]

    async def _switch(
        self,
        caller: Caller,
        app: str,
        service: str | None,
        verb: str,
        make: Callable[[AppId, AppSpec, Iterable[ReplicaRow]], str],
    ) -> Accepted:
        caller.must_change()

        async def attempt() -> Accepted:
            async with self._database.read() as connection:
                record = await facts.load_app(connection, caller.tenant, app)
                rows = await replicas.find(connection, app=record.app.id)
            await changes.require_quiet(self._flows, record.app)
            chosen = [row for row in rows if service in (None, row.service, row.name)]
            if record.release is None or not chosen:
                raise NotFound(f"App {app!r} has no service or replica {service!r}; see 'skep ps {app}'.")
            claim = partial(changes.claim, flows=self._flows, app=record.app)
            document = make(record.app.id, record.release.spec, chosen)
            title = f"{verb} {app}{f'/{service}' if service else ''}"
            return await self._run(record.app, document, title, claim)

        return await changes.settled(app, attempt)

    async def _start_apply(
        self, caller: Caller, wanted: Wanted, plan: Plan, record: AppRecord | None
    ) -> Accepted:
        now, spec = self._now(), wanted.spec
        app = (
            record.app
            if record
            else AppRow(id=plan.app, tenant_id=caller.tenant, name=spec.name, created=now, updated=now)
        )
        release = ReleaseRow(
            id=plan.release,
            tenant_id=caller.tenant,
            app_id=app.id,
            revision=plan.revision,
            state="pending",
            spec=spec,
            plan=msgspec.json.encode(plan).decode(),
            images=dict(plan.images.items()),
            created_by=caller.user_name,
            created=now,
            note=wanted.note,
        )

        async def insert(transaction: AsyncConnection) -> None:
            if record is None:
                await apps.insert(transaction, app)
            else:
                await changes.claim(transaction, self._flows, app)
            more = sum(disk.size for disk in plan.disks) if plan.destination is not None else 0
            await self._planner.check_quota(transaction, caller, app.id, spec, more)
            await apps.save_files(transaction, caller.tenant, wanted.contents)
            await self._keep_files(transaction, caller, spec)
            await releases.insert(transaction, release)
            await retention.forget_old(transaction, app.id, self._settings.keep_releases)

        if plan.destination is not None:
            document = documents.move(plan, spec)
        else:
            async with self._database.read() as connection:
                builder = await facts.build_host(connection)
            document = documents.apply(plan, spec, builder)
        title = f"{wanted.verb} {spec.name} (revision {plan.revision})"
        accepted = await self._run(app, document, title, insert, {"release": release.id})
        return msgspec.structs.replace(accepted, message=" ".join(plan.remarks))

    async def _keep_files(self, transaction: AsyncConnection, caller: Caller, spec: AppSpec) -> None:
        """Raises Overtaken: one is being forgotten, since nothing needed it."""
        files = [*spec.configs.values(), *spec.secrets.values()]
        digests = {file.digest for file in files if file.digest is not None}
        if digests and not await apps.hold_files(transaction, caller.tenant, digests):
            raise changes.Overtaken

    async def _run(
        self,
        app: AppRow,
        document: str,
        title: str,
        before: Callable[[AsyncConnection], Awaitable[None]],
        labels: Mapping[str, str] = {},
    ) -> Accepted:
        run = await self._flows.start(
            self._flows.parse(document),
            {},
            tenant=app.tenant_id,
            title=title,
            labels={"app": app.id, **labels},
            before=before,
        )
        return Accepted(run=run)

    async def _removal(self, connection: AsyncConnection, app: AppRow) -> str:
        release = await releases.get(connection, app.release_id) if app.release_id else None
        return await app_views.removal_document(connection, app, release)

    async def _view(self, connection: AsyncConnection, seen: app_views.Scene) -> AppView:
        active = await self._flows.list(labels={"app": seen.app.id}, active=True, limit=1)
        tenant = await tenants.get(connection, seen.app.tenant_id)
        return await app_views.app(
            connection, seen, tenant.name if tenant else "", bool(active), self._settings
        )


def _mark(plan: Plan, found: Facts, spec: AppSpec, record: AppRecord | None) -> str:
    listed = app_views.plan(plan, found, spec).changes
    return explaining.mark(plan, spec, listed, record.app.revision if record else 0)
