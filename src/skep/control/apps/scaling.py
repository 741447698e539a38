"""How many replicas the services of an app have: the one thing that is changed without a file."""

from collections.abc import Mapping
from difflib import get_close_matches

import msgspec

from skep.control.apps.apps import Apps
from skep.control.apps.retention import AUTOSCALER
from skep.control.apps.validation import check
from skep.control.apps.wanted import LONGEST_NOTE, Wanted
from skep.control.callers import Caller, Role
from skep.control.plans import facts
from skep.flow import Database
from skep.model.errors import Conflict, InvalidInput, NotFound
from skep.model.ids import UserId
from skep.model.names import ServiceName, TenantName
from skep.model.spec import AppSpec, ServiceSpec
from skep.model.views.base import Accepted
from skep.store.apps import AppRow
from skep.store.releases import ReleaseRow


class Scaling:
    def __init__(self, database: Database, apps: Apps) -> None:
        self._database = database
        self._apps = apps

    async def scale(self, caller: Caller, app: str, counts: Mapping[str, int]) -> Accepted:
        """Release the app as it is with these numbers of replicas; its images stay what they are.

        Raises:
            NotFound: it has no such service.  InvalidInput: what scales it by itself has other bounds.
            Conflict: another run is changing the app.
        """
        caller.must_change()

        async def think() -> Wanted:
            async with self._database.read() as connection:
                record = await facts.load_app(connection, caller.tenant, app)
            if record.release is None:
                raise Conflict(f"App {app!r} has no release yet; see 'skep run ls {app}'.")
            _must_be_free(record.release.spec, counts)
            spec = scaled(record.release.spec, counts)
            check(spec, caller)
            return wanted_of(record.release, spec, record.app.version)

        return await self._apps.release(caller, app, think)

    async def autoscale(
        self, app: AppRow, tenant: TenantName, counts: Mapping[str, int], why: str
    ) -> Accepted:
        """The same on nobody's request, for what services do.

        Raises:
            Exhausted: there is no room, or the quota is used up.  Conflict: a run is changing the app.
        """
        nobody = Caller(
            user=UserId("autoscaler"),
            user_name=AUTOSCALER,
            role=Role.MEMBER,
            tenant=app.tenant_id,
            tenant_name=tenant,
        )

        async def think() -> Wanted:
            async with self._database.read() as connection:
                record = await facts.load_app(connection, app.tenant_id, app.name)
            if record.release is None or record.app.version != app.version:
                raise Conflict(f"App {app.name!r} was changed meanwhile.")
            wanted = wanted_of(record.release, scaled(record.release.spec, counts), app.version)
            return msgspec.structs.replace(
                wanted, verb="autoscale", note=f"{wanted.note}: {why}"[:LONGEST_NOTE]
            )

        return await self._apps.release(nobody, app.name, think)


def wanted_of(current: ReleaseRow, spec: AppSpec, version: int) -> Wanted:
    """The current release with other numbers, which its note tells."""
    before = current.spec.services
    changed = {name: one.replicas for name, one in spec.services.items() if one != before[name]}
    note = ", ".join(f"{name}={count}" for name, count in sorted(changed.items()))
    return Wanted(spec=spec, images=current.images, base=version, note=f"scale {note}", verb="scale")


def scaled(spec: AppSpec, counts: Mapping[str, int]) -> AppSpec:
    """Raises NotFound: it has no such service."""
    for name in counts:
        if name not in spec.services:
            close = get_close_matches(name[:40], spec.services, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(sorted(spec.services))}."
            raise NotFound(f"App {spec.name!r} has no service {name[:40]!r}; {hint}")
    services: dict[ServiceName, ServiceSpec] = {
        name: msgspec.structs.replace(service, replicas=counts.get(name, service.replicas))
        for name, service in spec.services.items()
    }
    return msgspec.structs.replace(spec, services=services)


def _must_be_free(spec: AppSpec, counts: Mapping[str, int]) -> None:
    """Raises InvalidInput: a service that scales by itself would at once be scaled back."""
    for name, count in counts.items():
        service = spec.services.get(ServiceName(name))
        policy = service.x_skep.scale if service else None
        if policy is not None and not policy.min <= count <= policy.max:
            raise InvalidInput(
                f"Service {name!r} is scaled by what it does, between {policy.min} and {policy.max} "
                "(`x-skep.scale`): change these bounds, and apply."
            )
