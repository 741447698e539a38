"""A run as a table on a terminal."""

from datetime import UTC, datetime

from rich.console import Group as Stack
from rich.console import RenderableType
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from skep.cli.picture import Group, Picture, seconds

_MARKS = {
    "succeeded": ("✓", "green"),
    "failed": ("✗", "red"),
    "undone": ("↶", "yellow"),
    "pending": ("·", "dim"),
}
_SPINNER = Spinner("dots", style="cyan")


def draw(picture: Picture, height: int) -> RenderableType:
    """One line per group; when they are too many for the screen, those at work come first."""
    groups = list(picture.groups.values())
    room = max(3, height - 4)
    hidden = max(0, len(groups) - room)
    if hidden:
        groups = sorted(groups, key=_interest)[:room]
    grid = Table.grid(padding=(0, 1))
    for _ in range(5):
        grid.add_column(no_wrap=True, overflow="ellipsis")
    for group in groups:
        grid.add_row(*_row(group))
    rest = [Text(f"  … and {hidden} more", style="dim")] if hidden else []
    return Stack(Text(picture.run.title, style="bold"), grid, *rest)


def _interest(group: Group) -> int:
    order = ("failed", "undoing", "retrying", "started", "undone", "pending", "succeeded")
    return order.index(group.state) if group.state in order else len(order)


def _row(group: Group) -> tuple[RenderableType, ...]:
    mark = _MARKS.get(group.state)
    first: RenderableType = Text(*mark) if mark else _SPINNER
    count = f"{group.done}/{len(group.states)}"
    return (
        first,
        Text(group.name),
        Text(count, style="dim"),
        Text(_time(group), style="dim"),
        Text(_message(group)),
    )


def _time(group: Group) -> str:
    if not group.began:
        return ""
    resting = group.state in _MARKS
    took = seconds(group.began, group.ended if resting else datetime.now(UTC).isoformat())
    return f"{max(0.0, took or 0.0):.1f}s"


def _message(group: Group) -> str:
    return "" if group.state == "succeeded" else group.message.splitlines()[-1] if group.message else ""
