"""What is sent for a build: the directory without what `.dockerignore` leaves out, and the Dockerfile.

Patterns are Docker's (https://docs.docker.com/build/concepts/context/#dockerignore-files): rooted at the
context, the last that matches counts, `!` takes back.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from pathspec import GitIgnoreSpec

from skep.cli.archive import stream
from skep.cli.failures import Exit, Failure

INLINE_NAME = ".skep.Dockerfile"
"""Where a Dockerfile that is not in the context travels."""


class Context:
    """What is sent for one build; `dockerfile` is its name inside.

    Raises:
        Failure: the directory or the Dockerfile does not exist.
    """

    def __init__(self, root: Path, dockerfile: str, inline: str | None = None) -> None:
        if not root.is_dir():
            raise Failure(f"The build context {root} is not a directory.", Exit.INVALID)
        self.root = root
        self._inline = inline if inline is not None else _outside(root, dockerfile)
        self.dockerfile = (
            INLINE_NAME if self._inline is not None else os.path.relpath(root / dockerfile, root)
        )
        self._ignored = _ignored(root, dockerfile)
        self._takes_back = any(pattern.include is False for pattern in self._ignored.patterns)

    def names(self) -> Iterator[str]:
        """Everything that is sent, relative to the root, parents first."""
        kept = {self.dockerfile, ".dockerignore"}
        for folder, folders, files in os.walk(self.root):
            base = os.path.relpath(folder, self.root)
            names = [_join(base, name) for name in sorted([*folders, *files])]
            yield from (name for name in names if name in kept or not self._ignored.match_file(name))
            folders[:] = [name for name in folders if self._enters(_join(base, name))]

    def stream(self) -> Iterator[bytes]:
        """The context as a tar, chunk by chunk."""
        extra = {INLINE_NAME: self._inline.encode()} if self._inline is not None else {}
        return stream(self.root, self.names(), extra)

    def _enters(self, folder: str) -> bool:
        """Whether anything below the folder may be sent; `!` may take back what is inside an ignored one."""
        if self._takes_back or self.dockerfile.startswith(folder + "/"):
            return True
        return not self._ignored.match_file(folder)


def _outside(root: Path, dockerfile: str) -> str | None:
    """The text of a Dockerfile that lies outside of the context; None when it lies inside."""
    path = root / dockerfile
    if not path.is_file():
        raise Failure(f"There is no Dockerfile {path}.", Exit.INVALID)
    inside = Path(os.path.relpath(path, root)).parts[0] != ".."
    return None if inside else path.read_text()


def _ignored(root: Path, dockerfile: str) -> GitIgnoreSpec:
    for candidate in (root / f"{dockerfile}.dockerignore", root / ".dockerignore"):
        if candidate.is_file():
            return GitIgnoreSpec.from_lines(_rooted(candidate.read_text().splitlines()))
    return GitIgnoreSpec.from_lines([])


def _rooted(lines: list[str]) -> Iterator[str]:
    """Docker's patterns begin at the root; git's do so only with a slash in front."""
    for line in lines:
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        path = os.path.normpath(pattern.removeprefix("!").strip()).lstrip("/")
        if path != ".":
            yield ("!/" if pattern.startswith("!") else "/") + path


def _join(base: str, name: str) -> str:
    return name if base == "." else f"{base}/{name}"
