"""`skep schedule`."""

from typing import Annotated, Literal

from cyclopts import App, Parameter

from skep.cli.common import DEFAULT, Common
from skep.cli.flows import Flow, Priority
from skep.cli.names import complete_schedule
from skep.cli.output import age, document, say, show
from skep.cli.values import inputs
from skep.model.views.base import Accepted
from skep.model.views.flows import FlowDetail
from skep.model.views.schedules import ScheduleView

app = App(name="schedule", help="Schedules: flows that start by the clock.")

Schedule = Annotated[str, Parameter(completer=complete_schedule)]


@app.command(name="ls")
def list_schedules(
    *, all_tenants: Annotated[bool, Parameter(negative=())] = False, common: Common = DEFAULT
) -> None:
    """List the schedules of the tenant.

    Example: `skep schedule ls`

    Parameters
    ----------
    all_tenants
        Of all tenants; for admins.
    """
    columns = [
        *([("TENANT", lambda one: one.tenant)] if all_tenants else []),
        ("SCHEDULE", lambda one: one.name),
        ("FLOW", lambda one: one.flow),
        ("WHEN", lambda one: one.cron if one.timezone == "UTC" else f"{one.cron} {one.timezone}"),
        ("OVERLAP", lambda one: one.overlap),
        ("NEXT", lambda one: "paused" if one.paused else one.next),
        ("LAST", lambda one: age(one.last)),
        ("RUN", lambda one: one.last_run),
        ("ERROR", lambda one: one.error),
    ]
    found = common.connect().get("/v1/schedules", list[ScheduleView], all_tenants=all_tenants)
    show(found, columns, common.output)


@app.command(name="set")
def set_schedule(
    name: Schedule,
    flow: Flow,
    cron: str,
    /,
    *,
    input: Annotated[tuple[str, ...], Parameter(name=["--input", "-i"])] = (),  # noqa: A002 - the option
    timezone: str = "UTC",
    overlap: Literal["skip", "queue", "cancel", "allow"] = "skip",
    missed: Literal["once", "none"] = "once",
    priority: Priority | None = None,
    common: Common = DEFAULT,
) -> None:
    """Make a schedule, or change the one of that name. For admins.

    Example: `skep schedule set nightly backup.all "30 2 * * *" --timezone Europe/Berlin --overlap queue`

    Parameters
    ----------
    name
        Name of the schedule.
    flow
        What it starts.
    cron
        Minute hour day month weekday, or @hourly, @daily, @weekly, @monthly.
    input
        NAME=VALUE, or a JSON object; may be given several times.
    timezone
        In which the time is meant.
    overlap
        While its last run goes on: begin none, begin one after it, cancel it, or begin another beside it.
    missed
        For times at which skep was down: begin one run, or none.
    priority
        Instead of the flow's own.
    """
    client = common.connect()
    types = client.get(f"/v1/flows/{flow}", FlowDetail).flow.input
    body = {
        "flow": flow,
        "cron": cron,
        "input": inputs(input, types),
        "timezone": timezone,
        "overlap": overlap,
        "missed": missed,
        "priority": priority,
    }
    made = client.put(f"/v1/schedules/{name}", ScheduleView, body)
    if common.output != "table":
        document(made, common.output)
    say(f"Schedule {name} starts {flow} next at {made.next}{', but is paused' if made.paused else ''}.")


@app.command
def rm(name: Schedule, /, *, common: Common = DEFAULT) -> None:
    """Remove a schedule. The runs that it began go on.

    Example: `skep schedule rm nightly`

    Parameters
    ----------
    name
        Name of the schedule.
    """
    common.connect().act("DELETE", f"/v1/schedules/{name}")
    say(f"Removed {name}.")


@app.command
def pause(name: Schedule, /, *, common: Common = DEFAULT) -> None:
    """Start no run until it is resumed; what is due meanwhile is not made up for.

    Example: `skep schedule pause nightly`

    Parameters
    ----------
    name
        Name of the schedule.
    """
    common.connect().act("POST", f"/v1/schedules/{name}/pause")
    say(f"Schedule {name} is paused.")


@app.command
def resume(name: Schedule, /, *, common: Common = DEFAULT) -> None:
    """Go on with the next due time.

    Example: `skep schedule resume nightly`

    Parameters
    ----------
    name
        Name of the schedule.
    """
    common.connect().act("POST", f"/v1/schedules/{name}/resume")
    say(f"Schedule {name} goes on.")


@app.command
def run(name: Schedule, /, *, common: Common = DEFAULT) -> None:
    """Begin a run at once; prints its id. The next due time stays.

    Example: `skep schedule run nightly`

    Parameters
    ----------
    name
        Name of the schedule.
    """
    begun = common.connect().post(f"/v1/schedules/{name}/run", Accepted)
    say(f"Run {begun.run} has begun; `skep run follow {begun.run}` shows it.")
    if common.output == "table":
        print(begun.run)
    else:
        document(begun, common.output)
