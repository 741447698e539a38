"""Schedules: flows that operators have started by the clock, in the tenant they act in."""

from collections.abc import Mapping
from typing import cast

from skep.control.callers import Caller
from skep.control.clock import rfc3339
from skep.control.runs.flow_documents import priority_named
from skep.control.runs.flow_faults import translated
from skep.flow import Database, schedules
from skep.flow.schedules import Missed, Overlap, Schedule
from skep.model.views.base import Accepted
from skep.model.views.schedules import ScheduleView
from skep.store import tenants


class Schedules:
    """A tenant sees its own; to start flows by name is for operators."""

    def __init__(self, database: Database, clockwork: schedules.Schedules) -> None:
        self._database = database
        self._clockwork = clockwork

    async def put(
        self,
        caller: Caller,
        name: str,
        flow: str,
        values: Mapping[str, object],
        cron: str,
        *,
        timezone: str = "UTC",
        overlap: str = "skip",
        missed: str = "once",
        priority: str | None = None,
    ) -> ScheduleView:
        """Make it, or change the one of that name; asking again changes nothing.

        Raises:
            NotFound: there is no such flow.
            InvalidInput: the time, the zone, a policy or the input is wrong.
        """
        caller.must_operate()
        with translated():
            made = await self._clockwork.put(
                *(name, flow, values, cron),
                tenant=caller.tenant,
                timezone=timezone,
                overlap=cast(Overlap, overlap),
                missed=cast(Missed, missed),
                priority=priority_named(priority),
                by=caller.user_name,
            )
        return _view(made, caller.tenant_name)

    async def remove(self, caller: Caller, name: str) -> None:
        """The runs that it began go on."""
        caller.must_operate()
        with translated():
            await self._clockwork.delete(caller.tenant, name)

    async def pause(self, caller: Caller, name: str) -> None:
        """It starts no run until it is resumed; what is due meanwhile is not made up for."""
        caller.must_operate()
        with translated():
            await self._clockwork.pause(caller.tenant, name, by=caller.user_name)

    async def resume(self, caller: Caller, name: str) -> None:
        caller.must_operate()
        with translated():
            await self._clockwork.resume(caller.tenant, name, by=caller.user_name)

    async def run(self, caller: Caller, name: str) -> Accepted:
        """Begin a run at once.  Raises Conflict: its last one is under way, and two are not allowed."""
        caller.must_operate()
        with translated():
            return Accepted(run=await self._clockwork.run_now(caller.tenant, name, by=caller.user_name))

    async def list(self, caller: Caller, *, all_tenants: bool = False) -> list[ScheduleView]:
        if all_tenants:
            caller.must_operate()
        found = await self._clockwork.list(None if all_tenants else caller.tenant)
        async with self._database.read() as connection:
            names = {row.id: row.name for row in await tenants.every(connection)}
        return [_view(one, names.get(one.tenant, "")) for one in found]  # type: ignore[call-overload]


def _view(found: Schedule, tenant: str) -> ScheduleView:
    return ScheduleView(
        name=found.name,
        tenant=tenant,
        flow=found.flow,
        input=found.input,
        cron=found.cron,
        timezone=found.timezone,
        overlap=found.overlap,
        missed=found.missed,
        priority=None if found.priority is None else found.priority.name.lower(),
        paused=found.paused,
        next=rfc3339(found.next),
        last=rfc3339(found.last),
        last_run=found.last_run,
        error=found.error,
        by=found.by,
        changed=rfc3339(found.at),
    )
