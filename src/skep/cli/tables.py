"""Tables for people: aligned columns, every cell whole however wide, so that it can be copied.

What is wider than the screen is left to the terminal to wrap.
"""

from collections.abc import Iterator, Sequence
from itertools import zip_longest

Row = Sequence[str]

_STYLES = {
    "running": "green",
    "healthy": "green",
    "succeeded": "green",
    "up": "green",
    "create": "green",
    "partial": "yellow",
    "changing": "yellow",
    "starting": "yellow",
    "restarting": "yellow",
    "pending": "yellow",
    "update": "yellow",
    "recreate": "yellow",
    "undoing": "yellow",
    "unhealthy": "red",
    "failed": "red",
    "needs-operator": "red",
    "remove": "red",
    "down": "red",
    "stopped": "dim",
    "exited": "dim",
    "cancelled": "dim",
    "keep": "dim",
}


_CODES = {"green": 32, "yellow": 33, "red": 31, "dim": 2, "bold": 1}
_BETWEEN = "  "


def plain(rows: Sequence[Row], heads: Row) -> Iterator[str]:
    """For a pipe."""
    lines = [list(heads), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    for line in lines:
        yield _BETWEEN.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def drawn(rows: Sequence[Row], heads: Row, *, colour: bool) -> Iterator[str]:
    """For a terminal: a cell may have several lines, and states have their colours."""
    cells = [[cell.split("\n") for cell in row] for row in (heads, *rows)]
    widths = [max(_width(line) for row in cells for line in row[column]) for column in range(len(heads))]
    looks = [["bold"] * len(heads), *([style(cell) if colour else "" for cell in row] for row in rows)]
    for row, look in zip(cells, looks, strict=True):
        for line in zip_longest(*row, fillvalue=""):
            yield _BETWEEN.join(map(_padded, line, look, widths)).rstrip()


def _padded(text: str, look: str, width: int) -> str:
    return painted(text, look) + " " * (width - _width(text))


def style(state: str) -> str:
    """The colour of a state."""
    return _STYLES.get(state.split(" ")[0], "")


def painted(text: str, look: str) -> str:
    """What makes a terminal show it in that colour."""
    return f"\x1b[{_CODES[look]}m{text}\x1b[0m" if look and text else text


def _width(text: str) -> int:
    """Columns that it takes on a terminal."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)
