"""`skep run graph` and `skep run critical`."""

import sys
import time
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from cyclopts import Parameter

from skep.cli import follow as following
from skep.cli.client import Client
from skep.cli.common import DEFAULT, Common
from skep.cli.names import Run
from skep.cli.output import colourful, document, say, show, style
from skep.cli.spans import lasting
from skep.model.views.runs import CriticalPathView, GraphNode, RunGraph

_REDRAW = 0.5
"""Seconds between two looks at a run that is followed."""
_MARKS = {
    "succeeded": "✓",
    "failed": "✗",
    "needs-operator": "✗",
    "running": "▶",
    "waiting": "◷",
    "retrying": "↻",
    "undoing": "↶",
    "undone": "↶",
    "skipped": "⤼",
}
Flag = Annotated[bool, Parameter(negative=())]


def graph(
    run: Run,
    /,
    *,
    svg: Flag = False,
    mermaid: Flag = False,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative=())] = False,
    common: Common = DEFAULT,
) -> None:
    """Draw the steps of a run with what has become of them, and how long each was queued and ran.

    Examples: `skep run graph 01jdabcdefghjkmnpqrs --follow`; `skep run graph … --svg > run.svg`

    Parameters
    ----------
    run
        Id of the run.
    svg
        As an SVG picture.
    mermaid
        As a Mermaid chart.
    follow
        Draw it again while it goes on, until it has ended.
    """
    client = common.connect()
    if svg or mermaid:
        print(client.text(f"/v1/runs/{run}/graph", format="svg" if svg else "mermaid"), end="")
        return
    if follow and sys.stdout.isatty():
        _redraw(client, run)
        return
    if follow:
        following.follow(client, run)
    found = client.get(f"/v1/runs/{run}/graph", RunGraph)
    if common.output != "table":
        document(found, common.output)
        return
    for line in tree(found.nodes):
        print(line)


def critical(run: Run, /, *, common: Common = DEFAULT) -> None:
    """Show which steps decided how long a run took, and by how much others could have been late.

    Example: `skep run critical 01jdabcdefghjkmnpqrs`

    Parameters
    ----------
    run
        Id of a run that has ended.
    """
    path = common.connect().get(f"/v1/runs/{run}/critical-path", CriticalPathView)
    if common.output != "table":
        document(path, common.output)
        return
    columns = [
        ("STEP", lambda one: one.step),
        ("FROM", lambda one: lasting(one.blocked)),
        ("QUEUED", lambda one: lasting(one.queued)),
        ("RAN", lambda one: lasting(one.running)),
        ("SHARE", lambda one: f"{(one.queued + one.running) / path.total:.0%}" if path.total else ""),
    ]
    show(path.steps, columns, "table")
    behind = f", {lasting(path.behind)} of it after the last of these" if path.behind >= 0.1 else ""
    say(f"{path.run.title} took {lasting(path.total)}{behind}.")
    on_it = {part for one in path.steps for part in (one.step, one.step.partition("[")[0])}
    near = sorted((slack, name) for name, slack in path.slack.items() if name not in on_it)
    if near:
        say("Next to matter: " + ", ".join(f"{name} (+{lasting(slack)})" for slack, name in near[:3]))


def tree(nodes: Iterable[GraphNode], *, colour: bool | None = None) -> list[str]:
    """A line per step, indented by how many come before it on the longest way."""
    depth: dict[str, int] = {}
    rows: list[tuple[str, GraphNode]] = []
    for node in nodes:
        depth[node.name] = max((depth[before] + 1 for before in node.after if before in depth), default=0)
        rows.append((f"{'  ' * depth[node.name]}{_MARKS.get(node.state, '·')} {node.name}", node))
    width = max((len(head) for head, _ in rows), default=0)
    painted = colourful() if colour is None else colour
    return [f"{head:<{width}}  {_paint(node.state, painted)}{_said(node)}".rstrip() for head, node in rows]


def _said(node: GraphNode) -> str:
    times = []
    if node.queued is not None and node.queued >= 0.05:
        times.append(f"queued {lasting(node.queued)}")
    if node.running is not None:
        times.append(f"ran {lasting(node.running)}")
    items = ", ".join(f"{count} {state}" for state, count in sorted(node.items.items()))
    after = f"after {', '.join(node.after)}" if len(node.after) > 1 else ""
    said = [*times, items, "" if node.state == "succeeded" else node.message, after]
    return "".join(f" · {part}" for part in said if part)


def _paint(state: str, colour: bool) -> str:
    codes = {"green": 32, "yellow": 33, "red": 31, "dim": 2}
    code = codes.get(style(state))
    return f"\x1b[{code}m{state}\x1b[0m" if colour and code else state


def _redraw(client: Client, run: str) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    def picture() -> tuple[bool, Any]:
        found = client.get(f"/v1/runs/{run}/graph", RunGraph)
        head = f"{found.run.title}: {found.run.state}"
        lines = _fitting(tree(found.nodes, colour=colourful()), Console().height - 3)
        return found.run.finished is not None, Text.from_ansi("\n".join([head, *lines]))

    over, text = picture()
    with Live(text, auto_refresh=False) as live:
        while not over:
            time.sleep(_REDRAW)
            over, text = picture()
            live.update(text, refresh=True)


def _fitting(lines: Sequence[str], room: int) -> Sequence[str]:
    """As many as the screen has room for: of the rest those that are over come off first."""
    if len(lines) <= room:
        return lines
    interesting = [line for line in lines if not line.lstrip().startswith(("✓", "⤼"))]
    kept = set((interesting or list(lines))[: max(1, room - 1)])
    shown = [line for line in lines if line in kept]
    return [*shown, f"… and {len(lines) - len(shown)} more"]
