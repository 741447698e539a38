"""What commands print: tables for people, JSON and YAML for programs, messages on stderr."""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

import msgspec

T = TypeVar("T")
Column = tuple[str, Callable[[T], object]]

_WIDE = 10_000

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


def colourful() -> bool:
    """Colour is for terminals, unless its owner said no (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def show(items: Sequence[T], columns: Sequence[Column[T]], output: str) -> None:
    """Print a list."""
    if output == "table":
        table([[text(cell(item)) for _, cell in columns] for item in items], [head for head, _ in columns])
    else:
        document(items, output)


def show_one(item: T, fields: Sequence[Column[T]], output: str) -> None:
    """Print one thing, a field per line."""
    if output != "table":
        document(item, output)
        return
    width = max(len(head) for head, _ in fields) + 2
    for head, cell in fields:
        print(f"{head + ':':<{width}}{text(cell(item))}".rstrip())


def document(item: object, output: str) -> None:
    """Print JSON or YAML."""
    if output == "json":
        print(msgspec.json.format(msgspec.json.encode(item), indent=2).decode())
        return
    import yaml

    plain = msgspec.json.decode(msgspec.json.encode(item))
    print(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True), end="")


def table(rows: Sequence[Sequence[str]], heads: Sequence[str]) -> None:
    if sys.stdout.isatty():
        _rich_table(rows, heads)
    else:
        for line in plain_table(rows, heads):
            print(line)


def plain_table(rows: Sequence[Sequence[str]], heads: Sequence[str]) -> Iterable[str]:
    """Lines with aligned columns, whole however wide."""
    lines = [list(heads), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _rich_table(rows: Sequence[Sequence[str]], heads: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in heads:
        grid.add_column(head, no_wrap=True)
    for row in rows:
        grid.add_row(*(Text(cell, style=style(cell)) for cell in row))
    # wider than the screen is left to the terminal to wrap: cells stay whole, and can be copied
    Console(highlight=False, no_color=not colourful(), width=_WIDE).print(grid, crop=False)


def style(state: str) -> str:
    """The colour of a state."""
    return _STYLES.get(state.split(" ")[0], "")


def text(value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple | list):
        return ", ".join(str(item) for item in value) or "-"
    return str(value)


def age(time: str | None, now: datetime | None = None) -> str:
    """How long ago an RFC 3339 time was: `45s`, `3m`, `5h`, `2d`."""
    if not time:
        return "-"
    try:
        then = datetime.fromisoformat(time)
    except ValueError:
        return time
    seconds = max(0.0, ((now or datetime.now(UTC)) - then).total_seconds())
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= 2 * size or (unit == "d" and seconds >= size):
            return f"{seconds // size:.0f}{unit}"
    return f"{seconds:.0f}s"


def size(count: int | None) -> str:
    """Bytes for people, in powers of 1024."""
    if count is None:
        return "-"
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1024
    raise AssertionError


def say(message: str) -> None:
    """A word about what happened; on stderr, so that stdout is what was asked for."""
    print(message, file=sys.stderr, flush=True)


def warn(message: object) -> None:
    prefix = "\x1b[33mwarning:\x1b[0m" if sys.stderr.isatty() and colourful() else "warning:"
    say(f"{prefix} {message}")


def complain(message: str, hint: str = "") -> None:
    prefix = "\x1b[31merror:\x1b[0m" if sys.stderr.isatty() and not os.environ.get("NO_COLOR") else "error:"
    say(f"{prefix} {message}")
    if hint:
        say(hint)


def confirm(question: str, yes: bool) -> None:
    """Ask before something is lost.

    Raises:
        Failure: the answer is no, or there is nobody to ask.
    """
    from skep.cli.failures import Exit, Failure

    if yes:
        return
    if not sys.stdin.isatty():
        raise Failure(f"{question} Nobody is here to answer.", Exit.INVALID, "Give --yes.")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Failure("Left as it is.", Exit.FAILED)


def parse_size(given: str) -> int:
    """`512m`, `1.5g`, `20GiB` or plain bytes; units are powers of 1024, as in Compose.

    Raises:
        Failure: it is no size.
    """
    import re

    from skep.cli.failures import Exit, Failure

    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", given.strip().lower())
    if match is None:
        raise Failure(f"{given!r} is not a size.", Exit.INVALID, "Write it like 512m or 20g.")
    return int(float(match[1]) * 1024 ** " kmgt".index(match[2] or " "))


def parse_span(given: str) -> float:
    """`30s`, `15m`, `12h` or `30d` as seconds.

    Raises:
        Failure: it is no duration.
    """
    import re

    from skep.cli.failures import Exit, Failure

    match = re.fullmatch(r"(\d{1,9})([smhd])", given)
    if match is None:
        raise Failure(f"{given!r} is no duration.", Exit.INVALID, "Write it like 12h or 30d.")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3_600, "d": 86_400}[match[2]]
