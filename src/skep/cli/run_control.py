"""`skep run pause` and the like: one run, several, or all for which conditions hold."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import quote

from cyclopts import Parameter

from skep.cli.client import Client
from skep.cli.common import DEFAULT, Common
from skep.cli.failures import Exit, Failure
from skep.cli.names import Run, complete_app, complete_flow
from skep.cli.output import complain, confirm, document, say
from skep.cli.values import json_value
from skep.model.views.base import Accepted
from skep.model.views.runs import ActedView

State = Literal[
    "pending",
    "running",
    "waiting",
    "paused",
    "succeeded",
    "undoing",
    "failed",
    "cancelled",
    "needs-operator",
]
Yes = Annotated[bool, Parameter(name=["--yes", "-y"], negative=())]
_MOST = 1000
"""Runs that are acted on at a time."""
_NAMED = 5
"""Runs that are named before somebody decides about many."""
_DONE = {
    "pause": "is paused",
    "resume": "goes on",
    "cancel": "is being cancelled",
    "retry": "is tried again",
    "rerun": "is done again",
}


@Parameter(name="*")
@dataclass(frozen=True)
class Many:
    """Which runs, if none are named."""

    flow: Annotated[str | None, Parameter(completer=complete_flow)] = None
    """All of this flow, instead of naming runs."""
    state: tuple[State, ...] = ()
    """All in this state; may be given several times."""
    app: Annotated[str | None, Parameter(completer=complete_app)] = None
    """All of this app."""
    schedule: str | None = None
    """All that this schedule began."""
    failed_step: str | None = None
    """All in which this step failed."""
    all: Annotated[bool, Parameter(negative=())] = False
    """All of the tenant with which it can be done."""
    all_tenants: Annotated[bool, Parameter(negative=())] = False
    """Of all tenants; for admins."""

    @property
    def selection(self) -> dict[str, Any] | None:
        """As the API takes it; None: nothing was said."""
        conditions = {
            "flow": self.flow,
            "states": list(self.state) or None,
            "app": self.app,
            "schedule": self.schedule,
            "failed_step": self.failed_step,
        }
        said = {key: value for key, value in conditions.items() if value is not None}
        if not said and not self.all:
            return None
        return said | ({"tenants": True} if self.all_tenants else {})


DEFAULT_MANY = Many()


def pause(*runs: Run, many: Many = DEFAULT_MANY, yes: Yes = False, common: Common = DEFAULT) -> None:
    """Start no further step until the run is resumed; steps under way end.

    Examples: `skep run pause 01jdabcdefghjkmnpqrs`; `skep run pause --flow app.apply`

    Parameters
    ----------
    runs
        Ids of runs.
    yes
        Do not ask.
    """
    _steer("pause", runs, many, yes, common)


def resume(*runs: Run, many: Many = DEFAULT_MANY, yes: Yes = False, common: Common = DEFAULT) -> None:
    """Go on with runs that were paused.

    Examples: `skep run resume 01jdabcdefghjkmnpqrs`; `skep run resume --all --yes`

    Parameters
    ----------
    runs
        Ids of runs.
    yes
        Do not ask.
    """
    _steer("resume", runs, many, yes, common)


def cancel(*runs: Run, many: Many = DEFAULT_MANY, yes: Yes = False, common: Common = DEFAULT) -> None:
    """Stop runs and undo what they did.

    Examples: `skep run cancel 01jdabcdefghjkmnpqrs`; `skep run cancel --flow app.apply --state running`

    Parameters
    ----------
    runs
        Ids of runs.
    yes
        Do not ask.
    """
    _steer("cancel", runs, many, yes, common)


def retry(*runs: Run, many: Many = DEFAULT_MANY, yes: Yes = False, common: Common = DEFAULT) -> None:
    """Go on with runs that failed: what succeeded and was kept stays, the rest is done again. For admins.

    Examples: `skep run retry 01jdabcdefghjkmnpqrs`; `skep run retry --failed-step pull --yes`

    Parameters
    ----------
    runs
        Ids of runs.
    yes
        Do not ask.
    """
    _steer("retry", runs, many, yes, common)


def rerun(*runs: Run, many: Many = DEFAULT_MANY, yes: Yes = False, common: Common = DEFAULT) -> None:
    """Begin new runs with the same input; prints their ids. For admins.

    Examples: `skep run rerun 01jdabcdefghjkmnpqrs`; `skep run rerun --schedule nightly --state failed`

    Parameters
    ----------
    runs
        Ids of runs.
    yes
        Do not ask.
    """
    _steer("rerun", runs, many, yes, common)


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
        Name of the step; `-` is the run as a whole.
    choice
        Try again, go on without it, or take it as undone.
    """
    common.connect().act("POST", f"/v1/runs/{run}/steps/{quote(step, safe='')}/resolve", {"choice": choice})
    say(f"Run {run} goes on; `skep run follow {run}` shows it.")


def approve(
    run: Run,
    step: str,
    /,
    *,
    refuse: Annotated[bool, Parameter(negative=())] = False,
    comment: str = "",
    common: Common = DEFAULT,
) -> None:
    """Answer the approval that a step waits for.

    Examples: `skep run approve 01jdabcdefghjkmnpqrs ok`; `skep run approve … ok --refuse --comment "no"`

    Parameters
    ----------
    run
        Id of the run.
    step
        Name of the step.
    refuse
        Say no, which fails the step.
    comment
        Kept with the answer.
    """
    body = {"approved": not refuse, "comment": comment}
    common.connect().act("POST", f"/v1/runs/{run}/steps/{quote(step, safe='')}/approve", body)
    say(f"Step {step} of run {run} is {'refused' if refuse else 'approved'}.")


def signal(
    run: Run,
    name: str,
    value: str = "null",
    /,
    *,
    key: str | None = None,
    common: Common = DEFAULT,
) -> None:
    """Tell a run something: a step that waits for a signal of that name takes it, now or later.

    Example: `skep run signal 01jdabcdefghjkmnpqrs payment '{"amount": 12}' --key invoice-7`

    Parameters
    ----------
    run
        Id of the run.
    name
        Name of the signal.
    value
        What it carries, as JSON.
    key
        The same key again changes nothing.
    """
    body = {"name": name, "value": json_value(value), "key": key}
    common.connect().act("POST", f"/v1/runs/{run}/signals", body)
    say(f"Run {run} has been told {name}.")


def _steer(action: str, runs: Sequence[str], many: Many, yes: bool, common: Common) -> None:
    selection = many.selection
    if bool(runs) == (selection is not None):
        hint = "Give ids, or --flow, --state, --app, --schedule, --failed-step or --all."
        raise Failure("Say which runs: by their ids or by conditions, not both.", Exit.INVALID, hint)
    client = common.connect()
    if len(runs) == 1:
        _steer_one(client, action, runs[0], common)
        return
    if selection is not None:
        runs = _meant(client, action, selection, yes)
    if runs:
        done = client.post("/v1/runs/actions", list[ActedView], {"action": action, "runs": list(runs)})
        _report(action, done, common)


def _steer_one(client: Client, action: str, run: str, common: Common) -> None:
    if action == "rerun":
        accepted = client.post(f"/v1/runs/{run}/rerun", Accepted)
        _report(action, [ActedView(run=run, started=accepted.run)], common)
        return
    client.act("POST", f"/v1/runs/{run}/{action}")
    _report(action, [ActedView(run=run)], common)


def _meant(client: Client, action: str, selection: dict[str, Any], yes: bool) -> Sequence[str]:
    """The runs that the conditions mean, once somebody has agreed: those and no others."""
    body = {"action": action, "selection": selection, "dry": True}
    found = client.post("/v1/runs/actions", list[ActedView], body)
    if not found:
        say("There is no such run.")
        return ()
    for one in found[:_NAMED]:
        say(f"  {one.run}  {one.state:<10} {one.title}")
    if len(found) > _NAMED:
        say(f"  … and {len(found) - _NAMED} more")
    if len(found) == _MOST:
        say(f"{_MOST} is the most at a time: these are the newest; ask again for the others.")
    confirm(f"{action.capitalize()} {len(found)} run{'' if len(found) == 1 else 's'}?", yes)
    return [one.run for one in found]


def _report(action: str, done: Sequence[ActedView], common: Common) -> None:
    if common.output != "table":
        document(done, common.output)
    failed = [one for one in done if one.error]
    for one in done if common.output == "table" else ():
        if one.error:
            complain(f"{one.run}: {one.error}")
        elif one.started:
            say(f"Run {one.run} {_DONE[action]}:")
            print(one.started)
        else:
            say(f"Run {one.run} {_DONE[action]}; `skep run follow {one.run}` shows it.")
    if failed:
        raise Failure(f"It could not be done to {len(failed)} of {len(done)} runs.", Exit.CONFLICT)
