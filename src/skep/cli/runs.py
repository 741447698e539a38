"""`skep run` and `skep events`."""

from typing import Annotated, Any, Literal

import msgspec
from cyclopts import App, Parameter

from skep.cli import follow as following
from skep.cli.common import DEFAULT, Common
from skep.cli.names import complete_app
from skep.cli.output import age, say, show, show_one
from skep.model.views import EventView, RunDetail, RunView

app = App(name="run", help="Runs: list, show, follow, cancel, resolve.")


def _complete_run(_: Any) -> list[str]:
    from skep.cli.names import quietly

    return quietly(lambda client: [run.id for run in client.get("/v1/runs", list[RunView])])


Run = Annotated[str, Parameter(completer=_complete_run)]


@app.command(name="ls")
def list_runs(
    name: Annotated[str | None, Parameter(completer=complete_app)] = None,
    /,
    *,
    active: Annotated[bool, Parameter(negative=())] = False,
    limit: int = 20,
    common: Common = DEFAULT,
) -> None:
    """List what skep does and did, newest first.

    Examples: `skep run ls`; `skep run ls shop --active`

    Parameters
    ----------
    name
        Only of this app.
    active
        Only those that have not ended.
    limit
        How many.
    """
    columns = [
        ("RUN", lambda one: one.id),
        ("WHAT", lambda one: one.title),
        ("STATE", lambda one: one.state),
        ("STEPS", lambda one: f"{one.done}/{one.total}"),
        ("CREATED", lambda one: age(one.created)),
        ("ERROR", lambda one: one.error),
    ]
    runs = common.connect().get("/v1/runs", list[RunView], app=name, active=active, limit=limit)
    show(runs, columns, common.output)


@app.command(name="show")
def show_run(run: Run, /, *, common: Common = DEFAULT) -> None:
    """Show a run with all its steps.

    Example: `skep run show 01jdabcdefghjkmnpqrs`

    Parameters
    ----------
    run
        Id of the run.
    """
    detail = common.connect().get(f"/v1/runs/{run}", RunDetail)
    fields = [
        ("Run", lambda one: one.run.id),
        ("What", lambda one: one.run.title),
        ("State", lambda one: one.run.state),
        ("Steps", lambda one: f"{one.run.done} of {one.run.total}"),
        ("Created", lambda one: age(one.run.created) + " ago"),
        ("Error", lambda one: one.run.error),
    ]
    show_one(detail, fields, common.output)
    if common.output == "table" and detail.steps:
        print()
        columns = [
            ("STEP", lambda one: one.name),
            ("STATE", lambda one: one.state),
            ("ATTEMPTS", lambda one: one.attempts),
            ("TOOK", _took),
            ("MESSAGE", lambda one: one.message),
        ]
        show(detail.steps, columns, "table")


@app.command
def follow(run: Run, /, *, common: Common = DEFAULT) -> None:
    """Follow a run to its end. Exit code 1 when it fails.

    Example: `skep run follow 01jdabcdefghjkmnpqrs`

    Parameters
    ----------
    run
        Id of the run.
    """
    ended = following.follow(common.connect(), run)
    say(f"{ended.title}: {ended.state}")


@app.command
def cancel(run: Run, /, *, common: Common = DEFAULT) -> None:
    """Stop a run and undo what it did.

    Example: `skep run cancel 01jdabcdefghjkmnpqrs`

    Parameters
    ----------
    run
        Id of the run.
    """
    common.connect().act("POST", f"/v1/runs/{run}/cancel")
    say(f"Run {run} is being cancelled; `skep run follow {run}` shows it.")


@app.command
def resolve(
    run: Run, step: str, choice: Literal["retry", "skip", "mark-undone"], /, *, common: Common = DEFAULT
) -> None:
    """Decide about a step of a run that needs its operator.

    Example: `skep run resolve 01jdabcdefghjkmnpqrs web-0.start retry`

    Parameters
    ----------
    run
        Id of the run.
    step
        Name of the step.
    choice
        Try again, go on without it, or take it as undone.
    """
    common.connect().act("POST", f"/v1/runs/{run}/steps/{step}/resolve", {"choice": choice})
    say(f"Run {run} goes on; `skep run follow {run}` shows it.")


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


def _took(step: Any) -> str:
    took = following.seconds(step.started or "", step.finished or "")
    return "" if took is None else f"{took:.1f}s"
