"""Follow a run: a live picture on a terminal, plain lines in a pipe."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from skep.cli.client import Client
from skep.cli.failures import Exit, Failure
from skep.cli.output import say, warn
from skep.cli.picture import Picture, seconds
from skep.model.views.base import Accepted
from skep.model.views.runs import RunDetail, RunEventView, RunView

_MARKS = {
    "succeeded": "✓",
    "failed": "✗",
    "undo-failed": "✗",
    "in-doubt": "✗",
    "undone": "↶",
    "retrying": "↻",
    "undo-retrying": "↻",
}
_OF_RUNS = {
    "run-created": "",
    "run-started": "",
    "run-succeeded": "",
    "run-undoing": "undoing what was done",
    "run-stopping": "no further step begins",
    "run-resumed": "taken up again",
    "run-migrated": "moved to another version of its flow",
    "run-cancelled": "",
    "run-failed": "",
}
"""What to say of a run as a whole.  Why it failed its step has said, and the judgement at the end says."""
_OF_RUNS_BY = {
    "run-paused": "paused",
    "run-unpaused": "goes on",
    "run-retried": "tried again",
    "run-needs-operator": "needs its operator:",
}
"""The same, where the event's message says who did it, or which step it is about."""
_HOUSEKEEPING = ("hold", "discard", "record")
"""Steps that say nothing to who waits for an image, as long as they succeed."""
_STUCK, _WAITS = "run-needs-operator", "needs-operator"
"""The event, and the state that it begins."""
_SUCCEEDED = "run-succeeded"
"""After this nothing becomes of a run any more, so the server need not be asked how it ended."""


class View(Protocol):
    def take(self, event: RunEventView) -> None: ...


class PlainView:
    """A line per thing that happened."""

    def __init__(self) -> None:
        self._began: dict[str, str] = {}

    def take(self, event: RunEventView) -> None:
        if event.kind == "started":
            self._began[event.step] = event.at
        line = plain_line(event, seconds(self._began.get(event.step, ""), event.at))
        if line:
            say(line)


class LiveView:
    """A table that is redrawn: one line per group."""

    def __init__(self, picture: Picture, refresh: "Refresh") -> None:
        self._picture = picture
        self._refresh = refresh

    def take(self, event: RunEventView) -> None:
        self._picture.take(event)
        self._refresh()


class Refresh(Protocol):
    def __call__(self) -> None: ...


def finish(client: Client, accepted: Accepted, *, wait: bool = True) -> str | None:
    """Follow accepted work to its end; answers its run if there was any, and it was waited for.

    Raises:
        Failure: the run failed, was cancelled, or waits for its operator.
    """
    if accepted.run is None:
        say(accepted.message or "Nothing to do.")
        return None
    if accepted.message:
        warn(accepted.message)
    if not wait:
        say(f"Run {accepted.run} has begun; `skep run follow {accepted.run}` shows it.")
        return None
    follow(client, accepted.run)
    return accepted.run


def follow(client: Client, run: str) -> None:
    """Show the run until it has ended; any end but success is the command's.  Ctrl-C leaves it running."""
    last = ""
    try:
        with _view(client, run) as view:
            for event in client.run_events(run):
                view.take(event)
                last = event.kind
                if last == _STUCK and outcome(client, run).state == _WAITS:  # else it has gone on since
                    break
    except KeyboardInterrupt:
        say(f"\nThe run goes on.  Follow it: skep run follow {run}    Cancel it: skep run cancel {run}")
        raise
    if last != _SUCCEEDED:
        _judge(outcome(client, run))


def outcome(client: Client, run: str) -> RunView:
    """What has become of it."""
    return client.get(f"/v1/runs/{run}", RunDetail, fold=True).run


def _judge(run: RunView) -> None:
    if run.state == "succeeded":
        return
    hint = f"`skep run show {run.id}` shows every step."
    if run.state == _WAITS:
        hint = f"Decide: skep run resolve {run.id} STEP retry|skip|mark-undone"
    raise Failure(f"{run.title}: {run.error or run.state}", Exit.FAILED, hint)


def plain_line(event: RunEventView, took: float | None) -> str:
    """The event as a line, or nothing for those that say nothing new."""
    if not event.step:
        said = f"{_OF_RUNS_BY.get(event.kind, f'{event.kind}:')} {event.message}"
        return _OF_RUNS.get(event.kind, said.rstrip(" :"))
    if event.kind == "started" or (event.kind == "succeeded" and event.step in _HOUSEKEEPING):
        return ""
    mark = _MARKS.get(event.kind, "•")
    time = f" ({took:.1f}s)" if took is not None and event.kind in ("succeeded", "failed") else ""
    word = "" if event.kind in ("progress", "succeeded") else f" {event.kind}"
    message = f": {event.message}" if event.message else ""
    return f"{mark} {event.step}{word}{time}{message}"


@contextmanager
def _view(client: Client, run: str) -> Iterator[View]:
    if sys.stderr.isatty():
        with _live(Picture(client.get(f"/v1/runs/{run}", RunDetail, fold=True))) as view:
            yield view
    else:
        yield PlainView()


@contextmanager
def _live(picture: Picture) -> Iterator[View]:
    from rich.console import Console
    from rich.live import Live

    from skep.cli.drawing import draw

    console = Console(stderr=True, highlight=False)
    with Live(
        console=console, get_renderable=lambda: draw(picture, console.height), refresh_per_second=8
    ) as live:
        yield LiveView(picture, live.refresh if console.is_dumb_terminal else lambda: None)
