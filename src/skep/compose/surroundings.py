"""What the readers of a project know besides the tree: who asks, from where, with which variables."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from skep.compose.problems import Problems
from skep.documents import Position


class Surroundings(msgspec.Struct, frozen=True):
    """`environment` is the caller's over that of the env files; `directory` is the project's."""

    project: str
    directory: Path
    environment: Mapping[str, str]
    problems: Problems

    def file_position(self, path: Path, line: int) -> Position:
        """A place in one of the client's files, named from the project directory if it is inside."""
        inside = path.is_relative_to(self.directory)
        return Position(str(path.relative_to(self.directory)) if inside else str(path), line)
