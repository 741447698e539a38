"""The rows of `flow_schedules`."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Row, and_, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow.runs import Priority, moment
from skep.flow.schedules.schedule import Schedule
from skep.flow.steps import RunId
from skep.flow.storage import tables

_all = tables.schedules.c


async def find(connection: AsyncConnection, tenant: str, name: str) -> Schedule | None:
    found = (await connection.execute(select(tables.schedules).where(_named(tenant, name)))).first()
    return None if found is None else _schedule(found)


async def of(connection: AsyncConnection, tenant: str | None) -> list[Schedule]:
    """By tenant, then name; None: of all tenants."""
    query = select(tables.schedules).order_by(_all.tenant, _all.name)
    if tenant is not None:
        query = query.where(_all.tenant == tenant)
    return [_schedule(found) for found in await connection.execute(query)]


async def due(connection: AsyncConnection, now: float) -> list[Schedule]:
    """Those that are due, longest first."""
    query = select(tables.schedules).where(~_all.paused, _all.next <= now).order_by(_all.next)
    return [_schedule(found) for found in await connection.execute(query)]


async def served_after(connection: AsyncConnection, time: float) -> list[Schedule]:
    """Those that began a run, or were changed, later than that."""
    query = select(tables.schedules).where(~_all.paused, or_(_all.last > time, _all.at > time))
    return [_schedule(found) for found in await connection.execute(query)]


async def next_due(connection: AsyncConnection, now: float) -> float | None:
    """When the first of the others will be due."""
    query = select(func.min(_all.next)).where(~_all.paused, _all.next > now)
    found: float | None = (await connection.execute(query)).scalar()
    return found


async def busy(connection: AsyncConnection, schedules: Sequence[Schedule]) -> set[str]:
    """Which of their last runs are under way."""
    runs = [schedule.last_run for schedule in schedules if schedule.last_run]
    c = tables.runs.c
    query = select(c.id).where(c.id.in_(runs), c.finished.is_(None))
    return set((await connection.execute(query)).scalars()) if runs else set()


async def put(connection: AsyncConnection, schedule: Schedule) -> None:
    """Make it, or change what is asked of it; what has become of it stays."""
    asked: dict[str, Any] = {
        "flow": schedule.flow,
        "input": msgspec.json.encode(schedule.input),
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "overlap": schedule.overlap,
        "missed": schedule.missed,
        "priority": None if schedule.priority is None else int(schedule.priority),
        "next": schedule.due,
        "error": "",
        "by": schedule.by,
        "at": schedule.at.timestamp(),
    }
    change = update(tables.schedules).where(_named(schedule.tenant, schedule.name)).values(asked)
    if (await connection.execute(change)).rowcount == 0:
        new = {"tenant": schedule.tenant, "name": schedule.name, "paused": False} | asked
        await connection.execute(insert(tables.schedules).values(new))


async def remove(connection: AsyncConnection, tenant: str, name: str) -> bool:
    return (await connection.execute(delete(tables.schedules).where(_named(tenant, name)))).rowcount == 1


async def change(connection: AsyncConnection, schedule: Schedule, **values: object) -> bool:
    """False: it is gone, or its due time, last run or pause are no longer those of `schedule`."""
    same = and_(
        _named(schedule.tenant, schedule.name),
        _all.next == schedule.due,
        _all.last_run.is_not_distinct_from(schedule.last_run or None),
        _all.paused == schedule.paused,
    )
    return (await connection.execute(update(tables.schedules).where(same).values(values))).rowcount == 1


async def run_of(connection: AsyncConnection, tenant: str, key: str) -> RunId | None:
    """The run of that key, also one that this very transaction creates."""
    c = tables.runs.c
    found = (await connection.execute(select(c.id).where(c.tenant == tenant, c.key == key))).scalar()
    return None if found is None else RunId(found)


def _named(tenant: str, name: str) -> ColumnElement[bool]:
    return and_(_all.tenant == tenant, _all.name == name)


def _schedule(found: Row[Any]) -> Schedule:
    return Schedule(
        tenant=found.tenant,
        name=found.name,
        flow=found.flow,
        input=msgspec.json.decode(found.input),
        cron=found.cron,
        timezone=found.timezone,
        overlap=found.overlap,
        missed=found.missed,
        priority=None if found.priority is None else Priority(found.priority),
        paused=found.paused,
        next=datetime.fromtimestamp(found.next, UTC),
        last=moment(found.last),
        last_run=found.last_run or "",
        error=found.error,
        by=found.by,
        at=datetime.fromtimestamp(found.at, UTC),
    )
