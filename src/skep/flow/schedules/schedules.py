"""The schedules of an engine: what people ask of them.  What the clock does with them is in `clockwork`."""

import re
import secrets
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import get_args

import msgspec
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow.definition.plan import Flow
from skep.flow.engine import FlowEngine
from skep.flow.errors import UnknownFlow, WrongState
from skep.flow.execution.loading import check_input
from skep.flow.runs import Priority
from skep.flow.schedules import table
from skep.flow.schedules.clockwork import Clockwork
from skep.flow.schedules.schedule import Missed, Overlap, Schedule, UnknownSchedule, WrongSchedule
from skep.flow.schedules.times import Times
from skep.flow.steps import RunId
from skep.flow.storage.database import Database

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


class Schedules:
    """Schedules of flows; `run()` starts them, in as many processes as share the database.

    `clock`: seconds since 1970.
    """

    def __init__(
        self, database: Database, engine: FlowEngine, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._engine = engine
        self._clock = clock
        self._clockwork = Clockwork(database, engine, clock)

    async def run(self) -> None:
        """Start what is due until cancelled; a failure is logged and tried again."""
        await self._clockwork.run()

    async def put(
        self,
        name: str,
        flow: str,
        input: Mapping[str, object],  # noqa: A002
        cron: str,
        *,
        tenant: str = "",
        timezone: str = "UTC",
        overlap: Overlap = "skip",
        missed: Missed = "once",
        priority: Priority | None = None,
        by: str = "",
    ) -> Schedule:
        """Make the schedule, or change the one of that name; asking again changes nothing.

        A due time that has not been served is kept as long as `cron` and `timezone` stay the same; whether it
        is paused stays in any case.

        Raises:
            WrongSchedule: the name, the time, the zone or a policy is wrong.
            UnknownFlow, InputError: it could not start.
        """
        _check(name, overlap, missed)
        times = Times(cron, timezone)
        times.check()
        values = check_input(flow, self._flow(flow).types, input)
        now = self._clock()
        wanted = Schedule(
            tenant=tenant,
            name=name,
            flow=flow,
            input=msgspec.to_builtins(values),
            cron=cron,
            timezone=timezone,
            overlap=overlap,
            missed=missed,
            priority=priority,
            paused=False,
            next=_moment(times.after(now)),
            last=None,
            last_run="",
            error="",
            by=by,
            at=_moment(now),
        )
        await self._put(wanted)
        self._clockwork.wake()
        return await self.get(tenant, name)

    async def get(self, tenant: str, name: str) -> Schedule:
        """Raises UnknownSchedule."""
        async with self._database.read() as connection:
            return await self._find(connection, tenant, name)

    async def list(self, tenant: str | None = None) -> list[Schedule]:
        """By tenant and name; None: of all tenants."""
        async with self._database.read() as connection:
            return await table.of(connection, tenant)

    async def delete(self, tenant: str, name: str) -> None:
        """It starts no further run; those it began go on.  Raises UnknownSchedule."""
        if not await self._database.write(lambda connection: table.remove(connection, tenant, name)):
            raise UnknownSchedule(f"there is no schedule {name!r}")

    async def pause(self, tenant: str, name: str, by: str = "") -> None:
        """It starts no run until it is resumed; what is due meanwhile is not made up for."""
        await self._change(tenant, name, by, lambda _schedule: {"paused": True})

    async def resume(self, tenant: str, name: str, by: str = "") -> None:
        """Go on with the next due time from now.  One that is not paused stays as it is."""

        def resumed(schedule: Schedule) -> dict[str, object]:
            due = schedule.times.after(self._clock()) if schedule.paused else schedule.due
            return {"paused": False, "next": due}

        await self._change(tenant, name, by, resumed)

    async def run_now(self, tenant: str, name: str, by: str = "") -> RunId:
        """Begin a run at once, also of one that is paused; its next due time stays.

        Raises:
            UnknownSchedule, UnknownFlow, InputError
            WrongState: its last run is under way, and two at a time are not allowed.
        """
        schedule = await self.get(tenant, name)
        async with self._database.read() as connection:
            busy = await table.busy(connection, [schedule])
        if busy and schedule.overlap != "allow":
            raise WrongState(f"run {schedule.last_run} of schedule {name!r} has not ended")
        key = f"schedule/{tenant}/{name}/now/{secrets.token_hex(8)}"

        async def remember(connection: AsyncConnection) -> None:
            run = await table.run_of(connection, tenant, key)
            if not await table.change(connection, schedule, last=self._clock(), last_run=run, error=""):
                raise WrongState(f"schedule {name!r} has just changed; try again")

        labels = {"schedule": name} | ({"started-by": by} if by else {})
        return await self._engine.start(
            *(schedule.flow, schedule.input),
            tenant=tenant,
            labels=labels,
            key=key,
            transaction=remember,
            priority=schedule.priority,
        )

    async def _put(self, wanted: Schedule) -> None:
        async def put(connection: AsyncConnection) -> None:
            known = await table.find(connection, wanted.tenant, wanted.name)
            kept = known.next if known is not None and known.times == wanted.times else wanted.next
            await table.put(connection, msgspec.structs.replace(wanted, next=kept))

        try:
            await self._database.write(put)
        except IntegrityError:  # another process has just made it
            await self._database.write(put)

    async def _change(
        self, tenant: str, name: str, by: str, changes: Callable[[Schedule], dict[str, object]]
    ) -> None:
        async def change(connection: AsyncConnection) -> None:
            schedule = await self._find(connection, tenant, name)
            values = changes(schedule) | {"by": by, "at": self._clock()}
            if not await table.change(connection, schedule, **values):
                raise WrongState(f"schedule {name!r} has just changed; try again")

        await self._database.write(change)
        self._clockwork.wake()

    async def _find(self, connection: AsyncConnection, tenant: str, name: str) -> Schedule:
        found = await table.find(connection, tenant, name)
        if found is None:
            raise UnknownSchedule(f"there is no schedule {name!r}")
        return found

    def _flow(self, name: str) -> Flow:
        try:
            return self._engine.registry.flow(name)
        except LookupError as error:
            raise UnknownFlow(str(error)) from error


def _check(name: str, overlap: str, missed: str) -> None:
    if not _NAME.fullmatch(name):
        raise WrongSchedule(f"{name!r} is no name of a schedule: it takes a-z, 0-9, '.', '_' and '-'")
    for what, value, known in (("overlap", overlap, Overlap), ("missed", missed, Missed)):
        if value not in get_args(known):
            raise WrongSchedule(f"{what} is one of {', '.join(get_args(known))}, not {value!r}")


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
