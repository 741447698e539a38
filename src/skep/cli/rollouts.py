"""`skep rollout`."""

import sys
import time

from cyclopts import App

from skep.cli.apps import AppArgument, moved, tally
from skep.cli.common import DEFAULT, Common
from skep.cli.failures import Exit
from skep.cli.follow import finish
from skep.cli.output import age, document, say, show, show_one
from skep.model.views.base import Accepted
from skep.model.views.rollouts import AppStatus, RolloutView

app = App(name="rollout", help="A release that comes into force: status, watch, pause, resume, abort.")
PAUSE = 1.0
"""Seconds between two looks."""


@app.command
def status(name: AppArgument, /, *, common: Common = DEFAULT) -> None:
    """Show how far the last release of an app is, what it waits for, or how it ended.

    Example: `skep rollout status shop`

    Parameters
    ----------
    name
        Name of the app.
    """
    print_rollout(_look(common, name), common.output)


@app.command
def watch(name: AppArgument, /, *, common: Common = DEFAULT) -> int:
    """Follow a release until it is in force or was taken back; Ctrl-C stops watching and nothing else.

    Ends with exit code 0 if it came into force, else 1.

    Example: `skep rollout watch shop`

    Parameters
    ----------
    name
        Name of the app.
    """
    last = ""
    while True:
        found = _look(common, name)
        line = in_a_line(found)
        if line != last:
            say(line)
            last = line
        if found.finished is not None:
            break
        time.sleep(PAUSE)
    print_rollout(found, common.output)
    sys.stdout.flush()
    return Exit.OK if found.state == "succeeded" else Exit.FAILED


@app.command
def pause(name: AppArgument, /, *, common: Common = DEFAULT) -> None:
    """Begin no further step of a release; the share of connections that each set has stays as it is.

    Example: `skep rollout pause shop`

    Parameters
    ----------
    name
        Name of the app.
    """
    common.connect().post(f"/v1/apps/{name}/rollout/pause", Accepted)
    say(f"Paused. Go on with 'skep rollout resume {name}', or back with 'skep rollout abort {name}'.")


@app.command
def resume(name: AppArgument, /, *, common: Common = DEFAULT) -> None:
    """Go on with a release that was paused, or that asks whether to go on in spite of failures.

    Example: `skep rollout resume shop`

    Parameters
    ----------
    name
        Name of the app.
    """
    common.connect().post(f"/v1/apps/{name}/rollout/resume", Accepted)
    say("Going on.")


@app.command
def abort(name: AppArgument, /, *, wait: bool = True, common: Common = DEFAULT) -> None:
    """Take a release back that is not in force yet: connections first, then containers.

    Example: `skep rollout abort shop`

    Parameters
    ----------
    name
        Name of the app.
    wait
        Follow the work to its end.
    """
    client = common.connect()
    accepted = client.post(f"/v1/apps/{name}/rollout/abort", Accepted)
    finish(client, accepted, wait=wait)


def _look(common: Common, name: str) -> RolloutView:
    return common.connect().get(f"/v1/apps/{name}/rollout", RolloutView)


def in_a_line(found: RolloutView) -> str:
    counted = [f"{one.service} {one.ready}/{one.new} ready, {one.old} old" for one in found.services]
    return (
        f"revision {found.revision} {found.phase} [{found.done}/{found.total}] {'; '.join(counted)}".rstrip()
    )


def print_rollout(found: RolloutView, output: str) -> None:
    fields = [
        ("Release", lambda one: f"{one.app} revision {one.revision}"),
        ("Note", lambda one: one.note),
        ("Strategy", lambda one: one.strategy),
        ("State", lambda one: one.state),
        ("Phase", lambda one: one.phase),
        ("Steps", lambda one: f"{one.done} of {one.total}"),
        ("Waits for", lambda one: one.waits),
        ("Began", lambda one: age(one.created) + " ago"),
        ("Ended", lambda one: age(one.finished) + " ago" if one.finished else ""),
        ("Deadline in", lambda one: "" if one.deadline_in is None else f"{one.deadline_in:.0f}s"),
        ("Error", lambda one: one.error),
        ("Run", lambda one: one.run),
    ]
    show_one(found, fields, output)
    if output == "table" and found.services:
        print()
        show(
            found.services,
            [
                ("SERVICE", lambda one: one.service),
                ("OLD", lambda one: one.old),
                ("NEW", lambda one: one.new),
                ("READY", lambda one: one.ready),
                ("CONNECTIONS", lambda one: _share(one.old_weight, one.new_weight)),
            ],
            "table",
        )


def as_it_should_be(revision: int) -> str:
    """What is said where nothing differs from the revision in force; 0: there was none yet."""
    return f"Everything is as revision {revision} says." if revision else "No release is in force yet."


def _share(old: int, new: int) -> str:
    """What part of new connections goes to the new replicas."""
    return f"{round(100 * new / (old + new))}% new" if old + new else "none"


def show_status(name: str, common: Common) -> int:
    found = common.connect().get(f"/v1/apps/{name}/status", AppStatus)
    if common.output != "table":
        document(found, common.output)
        return Exit.FAILED if found.drift else Exit.OK
    say(f"{name} is {found.app.state.value}: {tally(found.app, 'replicas run')}.")
    if found.rollout is not None:
        say(in_a_line(found.rollout))
    if found.app.left_in:
        say(f"It has moved: {moved(found.app)}")
    for scale in found.scales:
        say(f"{scale.service} has {scale.replicas} of {scale.policy}.")
    if not found.drift:
        say(as_it_should_be(found.app.revision))
        return Exit.OK
    columns = [
        ("WHAT", lambda one: one.what),
        ("IS", lambda one: one.is_),
        ("SHOULD BE", lambda one: one.wanted),
        ("WHAT IS DONE", lambda one: one.doing),
    ]
    show(found.drift, columns, "table")
    return Exit.FAILED
