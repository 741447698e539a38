"""The `build` section of a service.

https://github.com/compose-spec/compose-spec/blob/main/build.md
"""

from pathlib import Path

from skep.compose.cursor import Cursor
from skep.compose.environment import read_args, read_map
from skep.compose.paths import REMOTE, is_directory, is_file
from skep.compose.project import Build
from skep.compose.surroundings import Surroundings


def read_build(cursor: Cursor, around: Surroundings) -> Build | None:
    """How the image is made; None without `build`.  The context and the Dockerfile must be there."""
    if not cursor.exists:
        return None
    context = _read_context(cursor, around)
    inline = cursor.get("dockerfile_inline").text()
    if inline is not None and cursor.has("dockerfile"):
        cursor.get("dockerfile_inline").error("stands beside dockerfile: give one of them")
    dockerfile = cursor.get("dockerfile").text() or "Dockerfile"
    if inline is None and context is not None:
        _check_dockerfile(cursor, context, dockerfile)
    return Build(
        context=context or around.directory,
        dockerfile=dockerfile,
        dockerfile_inline=inline,
        args=read_args(cursor.get("args"), around.environment),
        target=cursor.get("target").text(),
        labels=read_map(cursor.get("labels")),
        no_cache=cursor.get("no_cache").boolean(),
        tags=cursor.get("tags").texts(),
    )


def _read_context(cursor: Cursor, around: Surroundings) -> Path | None:
    at = cursor.get("context") if cursor.has("context") else cursor
    text = cursor.get("context").text() or str(around.directory)
    if text.startswith(REMOTE):
        at.error(f"{text[:80]!r}: contexts in other places are not fetched; build from a local directory")
        return None
    if not is_directory(Path(text)):
        at.error(f"the build context {text[:200]} is no directory")
        return None
    return Path(text)


def _check_dockerfile(cursor: Cursor, context: Path, dockerfile: str) -> None:
    if not is_file(context / dockerfile):
        at = cursor.get("dockerfile") if cursor.has("dockerfile") else cursor
        at.error(f"there is no {dockerfile[:100]} in the build context {context}")
