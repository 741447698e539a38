"""Which run is meant, whether the caller may see it, and what the caller may know of others."""

from skep.control.callers import Caller, Role
from skep.control.runs import run_views
from skep.flow import Database, FlowEngine, RunId, RunRecord
from skep.flow.definition.plan import Plan
from skep.flow.storage import archive, records
from skep.flow.storage.archive import ArchivedRun
from skep.model.errors import Conflict, NotFound
from skep.model.ids import TenantId
from skep.model.views.runs import RunView
from skep.store import tenants


class RunFinder:
    def __init__(self, database: Database, flows: FlowEngine) -> None:
        self._database = database
        self._flows = flows

    async def find(self, caller: Caller, run: str) -> tuple[RunRecord, ArchivedRun | None]:
        """The run, also an archived one.  Raises NotFound: there is none, or it is another tenant's."""
        archived = None
        try:
            record = await self._flows.get(RunId(run))
        except LookupError as error:
            async with self._database.read() as connection:
                archived = await archive.find(connection, RunId(run))
            if archived is None:
                raise _no_run(run) from error
            record = archived.run
        if not caller.sees(record.tenant) and caller.role is not Role.ADMIN:
            raise _no_run(run)
        return record, archived

    async def live(self, caller: Caller, run: str) -> RunRecord:
        """Raises NotFound, or Conflict: it is archived."""
        record, archived = await self.find(caller, run)
        if archived is not None:
            raise Conflict(f"Run {run} has ended long ago and is archived; it can only be shown.")
        return record

    async def planned(self, caller: Caller, run: str) -> tuple[RunRecord, Plan]:
        """With the definition that it goes by.  Raises NotFound, Conflict."""
        record = await self.live(caller, run)
        async with self._database.read() as connection:
            plan = await records.plan_of(connection, record.id)
        if plan is None:
            raise _no_run(run)
        return record, plan

    async def view(self, record: RunRecord, *, archived: bool = False) -> RunView:
        async with self._database.read() as connection:
            tenant = await tenants.get(connection, TenantId(record.tenant))
        return run_views.run(record, tenant.name if tenant else "", archived=archived)

    async def tenants(self) -> dict[str, str]:
        """Their names by id."""
        async with self._database.read() as connection:
            return {row.id: row.name for row in await tenants.every(connection)}

    async def name(self, caller: Caller, identifier: str) -> str | None:
        """Of a tenant its name, of a run its id; None for what is not the caller's to know."""
        operator = caller.role is Role.ADMIN
        async with self._database.read() as connection:
            tenant = await tenants.get(connection, TenantId(identifier))
        if tenant is not None:
            return tenant.name if operator or caller.sees(tenant.id) else None
        try:
            record = await self._flows.get(RunId(identifier))
        except LookupError:
            return identifier if operator else None
        return identifier if operator or caller.sees(record.tenant) else None


def _no_run(run: str) -> NotFound:
    return NotFound(f"There is no run {run!r}; see 'skep run ls'.")
