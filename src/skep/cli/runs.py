"""`skep run` and `skep events`."""

from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter

from skep.cli import follow as following
from skep.cli import run_control, run_graphs
from skep.cli.common import DEFAULT, Common
from skep.cli.names import Run, complete_app, complete_flow
from skep.cli.output import age, document, say, show, show_one
from skep.cli.picture import seconds
from skep.cli.run_control import State
from skep.cli.spans import lasting
from skep.model.views.apps import EventView
from skep.model.views.runs import RunDetail, RunView, StepView, WaitView

app = App(name="run", help="Runs: list, show, why, steer, approve, draw.")


@app.command(name="ls")
def list_runs(
    name: Annotated[str | None, Parameter(completer=complete_app)] = None,
    /,
    *,
    flow: Annotated[str | None, Parameter(completer=complete_flow)] = None,
    state: tuple[State, ...] = (),
    active: Annotated[bool, Parameter(negative=())] = False,
    schedule: str | None = None,
    failed_step: str | None = None,
    archived: Annotated[bool, Parameter(negative=())] = False,
    all_tenants: Annotated[bool, Parameter(negative=())] = False,
    before: str | None = None,
    limit: int = 20,
    common: Common = DEFAULT,
) -> None:
    """List what skep does and did, newest first.

    Examples: `skep run ls`; `skep run ls shop --active`; `skep run ls --state failed --failed-step pull`

    Parameters
    ----------
    name
        Only of this app.
    flow
        Only of this flow.
    state
        Only in this state; may be given several times.
    active
        Only those that have not ended.
    schedule
        Only those that this schedule began.
    failed_step
        Only those in which this step failed.
    archived
        Those that ended long ago, instead.
    all_tenants
        Of all tenants; for admins.
    before
        Only those older than this run.
    limit
        How many.
    """
    columns = [
        ("RUN", lambda one: one.id),
        *([("TENANT", lambda one: one.tenant)] if all_tenants else []),
        ("WHAT", lambda one: one.title),
        ("STATE", lambda one: one.state),
        ("STEPS", lambda one: f"{one.done}/{one.total}"),
        ("CREATED", lambda one: age(one.created)),
        ("ERROR", lambda one: one.error),
    ]
    runs = common.connect().get(
        "/v1/runs",
        list[RunView],
        app=name,
        flow=flow,
        state=",".join(state) or None,
        active=active,
        schedule=schedule,
        failed_step=failed_step,
        archived=archived,
        all_tenants=all_tenants,
        before=before,
        limit=limit,
    )
    show(runs, columns, common.output)


@app.command(name="show")
def show_run(
    run: Run,
    /,
    *,
    steps: Annotated[bool, Parameter(negative=())] = False,
    common: Common = DEFAULT,
) -> None:
    """Show a run with its steps: how long each was queued, and ran.

    Example: `skep run show 01jdabcdefghjkmnpqrs`

    Parameters
    ----------
    run
        Id of the run.
    steps
        List every item of a fan-out, instead of counting them.
    """
    detail = common.connect().get(f"/v1/runs/{run}", RunDetail, fold=not steps)
    show_one(detail, _fields(detail.run), common.output)
    if common.output == "table" and detail.steps:
        print()
        columns = [
            ("STEP", lambda one: one.name),
            ("STATE", lambda one: one.state),
            ("ATTEMPTS", lambda one: one.attempts),
            ("QUEUED", lambda one: lasting(one.queued)),
            ("RAN", lambda one: lasting(one.ran)),
            ("MESSAGE", _message),
        ]
        show(detail.steps, columns, "table")


@app.command
def why(run: Run, /, *, common: Common = DEFAULT) -> None:
    """Say exactly what a run, and each step that has not ended, waits for, and who has it.

    Example: `skep run why 01jdabcdefghjkmnpqrs`

    Parameters
    ----------
    run
        Id of the run.
    """
    client = common.connect()
    waits = client.get(f"/v1/runs/{run}/why", list[WaitView])
    if common.output != "table":
        document(waits, common.output)
        return
    if not waits:
        one = client.get(f"/v1/runs/{run}", RunDetail, fold=True).run
        say(f"Run {run} {'has ended' if one.finished else 'goes on'}: {one.state}; nothing waits.")
        return
    columns = [
        ("STEP", lambda row: row[0].step or "(the run)"),
        ("STATE", lambda row: row[0].state),
        ("WAITS FOR", lambda row: row[1].kind),
        ("WHY", lambda row: row[1].message),
        ("UNTIL", lambda row: row[1].until),
    ]
    show([(wait, reason) for wait in waits for reason in wait.reasons], columns, "table")


@app.command
def follow(run: Run, /, *, common: Common = DEFAULT) -> None:
    """Follow a run to its end. Exit code 1 when it fails.

    Example: `skep run follow 01jdabcdefghjkmnpqrs`

    Parameters
    ----------
    run
        Id of the run.
    """
    client = common.connect()
    following.follow(client, run)
    ended = following.outcome(client, run)
    say(f"{ended.title}: {ended.state}")


for _command in (
    run_control.pause,
    run_control.resume,
    run_control.cancel,
    run_control.retry,
    run_control.rerun,
    run_control.resolve,
    run_control.approve,
    run_control.signal,
    run_graphs.graph,
    run_graphs.critical,
):
    app.command(_command)


def events(
    name: Annotated[str | None, Parameter(completer=complete_app)] = None, /, *, common: Common = DEFAULT
) -> None:
    """Follow what changes, until Ctrl-C.

    Examples: `skep events`; `skep events shop -o json`

    Parameters
    ----------
    name
        Only of this app.
    """
    for event in common.connect().stream("/v1/events", EventView, app=name):
        if common.output != "table":
            print(msgspec.json.encode(event).decode(), flush=True)
            continue
        what = "/".join(dict.fromkeys(filter(None, (event.app, event.name))))
        message = f": {event.message}" if event.message else ""
        print(f"{event.at}  {event.kind:<8} {what}  {event.state}{message}", flush=True)


def _fields(run: RunView) -> list[tuple[str, Any]]:
    """What every run has, and of the rest what this one has."""
    fields = [
        ("Run", lambda one: one.run.id),
        ("What", lambda one: one.run.title),
        ("State", lambda one: f"{one.run.state} (archived)" if one.run.archived else one.run.state),
        ("Steps", lambda one: f"{one.run.done} of {one.run.total}"),
        ("Created", lambda one: age(one.run.created) + " ago"),
        ("Error", lambda one: one.run.error),
        ("Flow", lambda one: one.run.flow),
        ("Priority", lambda one: one.run.priority),
    ]
    took = seconds(run.started or "", run.finished or "")
    optional = {
        "Took": "" if took is None else lasting(took),
        "Deadline": run.deadline or "",
        "Worker": run.worker if run.finished is None else "",
        "Again of": run.parent,
        "Labels": ", ".join(f"{key}={value}" for key, value in sorted(run.labels.items())),
        "Output": msgspec.json.encode(run.output).decode() if run.output else "",
    }
    return fields + [(name, lambda _, text=text: text) for name, text in optional.items() if text]


def _message(step: StepView) -> str:
    """Of a fan-out how many of its items are done, and what becomes of the others."""
    counts = dict(step.items)
    done = counts.pop("succeeded", 0) + counts.pop("skipped", 0)
    tally = ", ".join([f"{done} done", *(f"{count} {state}" for state, count in sorted(counts.items()))])
    return " · ".join(filter(None, (tally if step.items else "", step.message)))
