"""What a Dockerfile needs from outside, read before anything runs.  Pure.

Parsing is that of `dockerfile-parse`; buildah has the last word on everything but what is refused here.
"""

import io
import re
from collections.abc import Mapping

import msgspec
from dockerfile_parse import DockerfileParser
from dockerfile_parse.util import WordSplitter

from skep.model.errors import InvalidInput, Unsupported

_FROM = re.compile(r"(?:--platform=\S+\s+)?(\S+)(?:\s+as\s+(\S+))?\s*$", re.IGNORECASE)
_FROM_FLAG = re.compile(r"--from=(\S+)")
_MOUNT = re.compile(r"--mount=(\S+)")
_ESCAPE = re.compile(r"\A(?:\s*#.*\n)*\s*#\s*escape\s*=\s*([^\\\s])", re.IGNORECASE)
_CACHE_KEYS = {
    "type",
    "id",
    "target",
    "dst",
    "destination",
    "sharing",
    "mode",
    "uid",
    "gid",
    "ro",
    "readonly",
}
_PLAIN_ID = re.compile(r"[A-Za-z0-9/][A-Za-z0-9._/-]*")


class Instruction(msgspec.Struct, frozen=True):
    name: str
    value: str
    line: int
    """Counts from 1."""
    last_line: int


def base_references(dockerfile: str, args: Mapping[str, str] | None = None) -> list[str]:
    """The images that must be there before the build, as the Dockerfile spells them, each once.

    FROM, COPY --from and RUN --mount=from; stages and `scratch` are none.  `args` are the build's own, which
    override the defaults of ARGs before the first FROM.

    Raises:
        InvalidInput: there is no FROM, or it cannot be understood.
    """
    known = dict(args or {})
    scope: dict[str, str] = {}
    stages: set[str] = set()
    found: dict[str, None] = {}
    count = 0
    for step in _instructions(dockerfile):
        if step.name == "ARG" and not count:
            scope |= _declared(step, known, scope)
        elif step.name == "FROM":
            image, alias = _from(step, scope)
            if image.lower() not in stages and image != "scratch":
                found[image] = None
            stages |= {alias.lower(), str(count)} - {""}
            count += 1
        elif step.name in ("COPY", "RUN", "ADD"):
            found |= dict.fromkeys(name for name in _sources(step) if name.lower() not in stages)
    if not count:
        raise InvalidInput("The Dockerfile has no FROM.")
    return list(found)


def expand_bases(dockerfile: str, args: Mapping[str, str] | None = None) -> str:
    """The Dockerfile with the ARGs of its FROM instructions replaced; lines keep their numbers.

    buildah 1.28 looks for a given base image before it expands them.
    """
    lines = dockerfile.splitlines()
    scope: dict[str, str] = {}
    seen_from = False
    for step in _instructions(dockerfile):
        if step.name == "ARG" and not seen_from:
            scope |= _declared(step, dict(args or {}), scope)
        elif step.name == "FROM":
            seen_from = True
            blank = [""] * (step.last_line - step.line)
            lines[step.line - 1 : step.last_line] = [f"FROM {_expand(step.value, scope)}", *blank]
    return "\n".join([*lines, ""])


def check_instructions(dockerfile: str) -> None:
    """Refuse what buildah's builds cannot do safely.

    Raises:
        Unsupported: mounts of other kinds than cache and tmpfs, another escape character.
    """
    if _ESCAPE.match(dockerfile):
        raise Unsupported("Dockerfile: only the backslash is supported as escape character.")
    for step in _instructions(dockerfile):
        for mount in _MOUNT.findall(step.value) if step.name in ("RUN", "ONBUILD") else ():
            _check_mount(mount, step.line)


def _check_mount(mount: str, line: int) -> None:
    options = {part.partition("=")[0]: part.partition("=")[2] for part in mount.strip("\"'").split(",")}
    kind = options.get("type", "bind")
    where = f"Dockerfile:{line}: RUN --mount=type={kind}"
    if kind == "tmpfs":
        return
    if kind != "cache":
        raise Unsupported(f"{where} is not supported: COPY what the command needs, or use type=cache.")
    if unknown := set(options) - _CACHE_KEYS:
        raise Unsupported(f"{where}: {', '.join(sorted(unknown))} is not supported.")
    names = [options[key] for key in ("id", "target", "dst", "destination") if key in options]
    if any(".." in name or not _PLAIN_ID.fullmatch(name) for name in names):
        raise InvalidInput(f"{where}: its id and target must be plain names without '..'.")


def _instructions(dockerfile: str) -> list[Instruction]:
    parser = DockerfileParser(fileobj=io.BytesIO(dockerfile.encode()))
    return [
        Instruction(step["instruction"].upper(), step["value"], step["startline"] + 1, step["endline"] + 1)
        for step in parser.structure
        if step["instruction"] != "COMMENT"
    ]


def _declared(step: Instruction, given: Mapping[str, str], scope: Mapping[str, str]) -> dict[str, str]:
    """The ARGs of one instruction with their values; one without a value is empty."""
    declared: dict[str, str] = {}
    for word in WordSplitter(step.value, args=dict(scope)).split():
        name, _, default = word.partition("=")
        declared[name] = given.get(name, default)
    return declared


def _from(step: Instruction, scope: Mapping[str, str]) -> tuple[str, str]:
    """The image and the stage's name."""
    match = _FROM.match(step.value)
    if not match:
        raise InvalidInput(f"Dockerfile:{step.line}: FROM {step.value} cannot be understood.")
    image = _expand(match.group(1), scope)
    if not image:
        raise InvalidInput(
            f"Dockerfile:{step.line}: FROM {match.group(1)} names no image: set the build argument."
        )
    return image, match.group(2) or ""


_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::([-+])([^}]*))?\})")


def _expand(text: str, scope: Mapping[str, str]) -> str:
    """$name, ${name}, ${name:-default} and ${name:+other}, as Dockerfiles have them."""

    def value(match: re.Match[str]) -> str:
        plain, braced, operator, other = match.groups()
        current = scope.get(plain or braced, "")
        if operator == "-":
            return current or other
        if operator == "+":
            return other if current else ""
        return current

    return _VARIABLE.sub(value, text.strip("\"'"))


def _sources(step: Instruction) -> list[str]:
    """Images or stages an instruction copies from or mounts."""
    flags = step.value.split("--", 1)[-1] if step.value.startswith("--") else ""
    names = [] if step.name == "RUN" else _FROM_FLAG.findall(step.value)[:1] if flags else []
    for mount in _MOUNT.findall(step.value) if step.name == "RUN" and flags else []:
        names += [part[5:] for part in mount.split(",") if part.startswith("from=")]
    return names
