"""Schedules: flows that start by the clock."""

from litestar import Response, Router, delete, get, post, put
from litestar.params import FromPath, FromQuery, JSONBody

from skep.api.answers import follow
from skep.api.asking import Caller, Control
from skep.api.bodies import SetSchedule
from skep.model.views.base import Accepted
from skep.model.views.schedules import ScheduleView


@get("/")
async def list_schedules(
    control: Control, caller: Caller, all_tenants: FromQuery[bool] = False
) -> list[ScheduleView]:
    """The schedules of the tenant; `all_tenants` is for admins."""
    return await control.schedules.list(caller, all_tenants=all_tenants)


@put("/{schedule:str}")
async def set_schedule(
    control: Control, caller: Caller, schedule: FromPath[str], data: JSONBody[SetSchedule]
) -> ScheduleView:
    """Make it, or change the one of that name; for admins.  Asking again changes nothing."""
    return await control.schedules.put(
        *(caller, schedule, data.flow, data.input, data.cron),
        timezone=data.timezone,
        overlap=data.overlap,
        missed=data.missed,
        priority=data.priority,
    )


@delete("/{schedule:str}", status_code=204)
async def remove_schedule(control: Control, caller: Caller, schedule: FromPath[str]) -> None:
    """Remove it; the runs that it began go on."""
    await control.schedules.remove(caller, schedule)


@post("/{schedule:str}/pause", status_code=204)
async def pause_schedule(control: Control, caller: Caller, schedule: FromPath[str]) -> None:
    """Start no run until it is resumed; what is due meanwhile is not made up for."""
    await control.schedules.pause(caller, schedule)


@post("/{schedule:str}/resume", status_code=204)
async def resume_schedule(control: Control, caller: Caller, schedule: FromPath[str]) -> None:
    """Go on with the next due time."""
    await control.schedules.resume(caller, schedule)


@post("/{schedule:str}/run", status_code=202)
async def run_schedule(control: Control, caller: Caller, schedule: FromPath[str]) -> Response[Accepted]:
    """Begin a run at once; its next due time stays."""
    return follow(await control.schedules.run(caller, schedule))


router = Router(
    path="/v1/schedules",
    tags=["schedules"],
    route_handlers=[
        list_schedules,
        set_schedule,
        remove_schedule,
        pause_schedule,
        resume_schedule,
        run_schedule,
    ],
)
