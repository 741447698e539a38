"""Takes a document apart and collects what is wrong with its shape."""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from skep.documents import Document, Path
from skep.flow.definition.conditions import condition
from skep.flow.definition.expressions import Constant, Expression, parse
from skep.flow.errors import Problem

T = TypeVar("T")
MOST_PROBLEMS = 1000
"""Of a hostile document; nobody reads on."""


def problem_at(document: Document, path: Path, reason: str) -> Problem:
    """The fault, with the step that it is in."""
    step = str(path[1]) if len(path) > 1 and path[0] == "steps" else ""
    return Problem(document.where(path), step, reason)


class Shapes:
    """Each method answers what stands at a path, or notes a problem and answers something harmless."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[Problem] = []

    def wrong(self, path: Path, reason: str) -> None:
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(problem_at(self.document, path, reason))

    def known(self, body: Mapping[str, object], keys: Iterable[str], path: Path) -> None:
        known = sorted(keys)
        for key in body:
            if key not in known:
                self.wrong((*path, key), f"{key[:80]!r} is not known here; known are {', '.join(known)}")

    def mapping(self, value: object, path: Path) -> dict[str, object]:
        if value is not None and not isinstance(value, dict):
            self.wrong(path, "must be a mapping")
        return value if isinstance(value, dict) else {}

    def list(self, value: object, path: Path) -> list[object]:
        if value is not None and not isinstance(value, list):
            self.wrong(path, "must be a list")
        return value if isinstance(value, list) else []

    def text(self, value: object, path: Path, reason: str) -> str:
        if not isinstance(value, str) or not value:
            self.wrong(path, reason)
        return value if isinstance(value, str) else ""

    def one_of(self, value: object, known: Mapping[str, T], path: Path, what: str) -> T | None:
        if isinstance(value, str) and value in known:
            return known[value]
        self.wrong(path, f"{str(value)[:80]!r} is no {what}; there are {', '.join(known)}")
        return None

    def count(
        self, value: object, path: Path, what: str, least: int = 1, most: int = 1_000_000
    ) -> int | None:
        if type(value) is int and least <= value <= most:
            return value
        self.wrong(path, f"{what}, {least} to {most}")
        return None

    def amount(self, read: Callable[[object], T], value: object, path: Path) -> T | None:
        """What `read` makes of a value; None of none, and of one that it refuses."""
        if value is None:
            return None
        try:
            return read(value)
        except ValueError as error:
            self.wrong(path, str(error))
            return None

    def expressions(self, value: object, path: Path) -> dict[str, Expression]:
        return {key: self.expression(item, (*path, key)) for key, item in self.mapping(value, path).items()}

    def expression(self, value: object, path: Path) -> Expression:
        return self.amount(parse, value, path) or Constant(None)

    def condition(self, value: object, path: Path) -> Expression | None:
        return self.amount(condition, value, path)
