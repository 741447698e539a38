"""Reading a tree with the finger on the line.

A cursor is a node, its path in words (`services.web.ports[0]`) and the collector of problems.  Its readers
answer a value of the asked type, or record an error in the user's words and answer None, so that one pass
over a file finds everything that is wrong with it.
"""

import math
import re
from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec

from skep.compose.problems import Problems
from skep.compose.units import parse_duration, parse_size, scalar_text
from skep.documents import Node, Position

T = TypeVar("T")

_INTEGER = re.compile(r"[-+]?\d{1,30}")
_BOOLEANS = {
    **dict.fromkeys(("true", "yes", "on", "y"), True),
    **dict.fromkeys(("false", "no", "off", "n"), False),
}


class Cursor(msgspec.Struct, frozen=True):
    node: Node
    path: str
    problems: Problems

    @property
    def position(self) -> Position:
        return self.node.position

    @property
    def exists(self) -> bool:
        return self.node.value is not None

    def error(self, message: str) -> None:
        self.problems.error(self.position, f"{self.path}: {message}" if self.path else message)

    def warn(self, message: str) -> None:
        self.problems.warn(self.position, f"{self.path}: {message}" if self.path else message)

    def get(self, key: str) -> "Cursor":
        """The value at a key; where there is none, a cursor at nothing that stands here."""
        value = self.node.value
        node = value.get(key) if isinstance(value, dict) else None
        return Cursor(node or Node(None, self.position), self.child_path(key), self.problems)

    def has(self, key: str) -> bool:
        return isinstance(self.node.value, dict) and key in self.node.value

    def child_path(self, key: str | int) -> str:
        if isinstance(key, int):
            return f"{self.path}[{key}]"
        return f"{self.path}.{key[:80]}" if self.path else key[:80]

    def entries(self) -> Iterator[tuple[str, "Cursor"]]:
        """The entries of a mapping; nothing of anything else."""
        if isinstance(self.node.value, dict):
            for key, node in self.node.value.items():
                yield key, Cursor(node, self.child_path(key), self.problems)

    def items(self) -> Iterator["Cursor"]:
        """The items of a list; nothing of anything else."""
        if isinstance(self.node.value, list):
            for index, node in enumerate(self.node.value):
                yield Cursor(node, self.child_path(index), self.problems)

    def text(self) -> str | None:
        value = self.node.value
        if isinstance(value, dict | list):
            self.error("must be text")
            return None
        return None if value is None else scalar_text(value)

    def texts(self) -> tuple[str, ...]:
        """A list of scalars as text; a single scalar is a list of one."""
        if isinstance(self.node.value, list):
            return tuple(text for item in self.items() if (text := item.text()) is not None)
        text = self.text()
        return () if text is None else (text,)

    def boolean(self, default: bool = False) -> bool:
        value = self.node.value
        if value is None:
            return default
        known = value if isinstance(value, bool) else _BOOLEANS.get(str(value).lower())
        if known is None:
            self.error("must be true or false")
        return bool(known)

    def integer(self, least: int, most: int) -> int | None:
        number = self._integer()
        if number is not None and not least <= number <= most:
            self.error(f"must be from {least} to {most}, not {_short(number)}")
            return None
        return number

    def _integer(self) -> int | None:
        value = self.node.value
        if value is None:
            return None
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, float) and math.isfinite(value) and value.is_integer():
            return int(value)
        if isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
            return int(value)
        self.error(f"must be a whole number, not {_short(value)}")
        return None

    def number(self, least: float, most: float) -> float | None:
        value = self.node.value
        if value is None:
            return None
        try:
            number = float(value) if not isinstance(value, bool | dict | list) else math.nan
        except (ValueError, OverflowError):
            number = math.nan
        if not least <= number <= most:  # also false for NaN
            self.error(f"must be a number from {least:g} to {most:g}, not {_short(value)}")
            return None
        return number

    def duration(self) -> float | None:
        """Seconds, at most thirty days."""
        seconds = self.parsed(parse_duration)
        if seconds is not None and seconds > 30 * 86_400:
            self.error("must be at most 30 days (720h)")
            return None
        return seconds

    def size(self, least: int = 0) -> int | None:
        """Bytes."""
        size = self.parsed(parse_size)
        if size is not None and size < least:
            self.error(f"must be at least {least} bytes, not {size}")
            return None
        return size

    def parsed(self, parse: Callable[[str], T]) -> T | None:
        """What `parse` makes of the text; its ValueError becomes an error here."""
        text = self.text()
        if text is None:
            return None
        try:
            return parse(text)
        except ValueError as error:
            self.error(str(error))
            return None


def _short(value: object) -> str:
    if isinstance(value, int) and abs(value) >= 10**20:
        return "such a large number"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:60] + "…"
