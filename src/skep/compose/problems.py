"""What is wrong with a Compose file, or not acted on: gathered first, told all at once."""

from collections.abc import Iterable

import msgspec

from skep.documents import Position
from skep.model.errors import InvalidInput

MOST_ERRORS = 50
"""More than a person reads; a hostile file must not make a report of a million lines."""


class ComposeWarning(msgspec.Struct, frozen=True):
    """Something the file asks for that skep does not act on.  Prints as `compose.yaml:12: …`."""

    position: Position
    message: str

    def __str__(self) -> str:
        return f"{self.position}: {self.message}"


class ComposeError(InvalidInput):
    """The Compose file cannot be used as written.

    `errors` holds every problem that was found with its place; the message is one line for each:
    `compose.yaml:12: services.web.ports[0]: …`.
    """

    def __init__(self, errors: tuple[tuple[Position, str], ...]) -> None:
        shown = [f"{position}: {message}" for position, message in errors[:MOST_ERRORS]]
        if len(errors) > MOST_ERRORS:
            shown.append(f"… and {len(errors) - MOST_ERRORS} more problems")
        super().__init__("\n".join(shown))
        self.errors = errors


class Problems(msgspec.Struct):
    """Collects while a file is read; `check` ends a stage that later stages build upon."""

    errors: list[tuple[Position, str]] = msgspec.field(default_factory=list)
    warnings: list[ComposeWarning] = msgspec.field(default_factory=list)

    def error(self, position: Position, message: str) -> None:
        if (position, message) not in self.errors[-MOST_ERRORS:]:
            self.errors.append((position, message))

    def warn(self, position: Position, message: str) -> None:
        warning = ComposeWarning(position, message)
        if warning not in self.warnings[-MOST_ERRORS:]:
            self.warnings.append(warning)

    def check(self) -> None:
        """Raises:
        ComposeError: something was wrong so far.
        """
        if self.errors:
            raise ComposeError(tuple(sorted(self.errors, key=lambda problem: _place(problem[0]))))


def closest(given: str, known: Iterable[str]) -> str:
    """What somebody may have meant; empty where nothing is near."""
    from difflib import get_close_matches  # here, since few files need it

    return next(iter(get_close_matches(given[:40], known, n=1)), "")


def _place(position: Position) -> tuple[str, int, int]:
    return position.file, position.line, position.column
