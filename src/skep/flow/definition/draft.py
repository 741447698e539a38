"""Flow documents as they are written: their shape is checked here, names and types by `wiring`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from skep.documents import Document, DocumentError, Path, load
from skep.flow.definition.expressions import INPUT, Constant, Expression, parse
from skep.flow.errors import FlowError, Problem

_STEP_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?")
"""One that begins with a digit can be waited for, but not be referred to by `$`."""
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_FLOW_KEYS = frozenset({"flow", "description", "input", "lock", "steps", "output"})
_STEP_KEYS = frozenset({"use", "flow", "with", "on", "after", "retry", "timeout"})


@dataclass(frozen=True)
class DraftStep:
    name: str
    use: str
    flow: str
    arguments: Mapping[str, Expression]
    on: Expression | None
    after: tuple[str, ...]
    retry: int | None
    timeout: float | None


@dataclass(frozen=True)
class Draft:
    """A document whose shape is right; nothing is known yet about the names and types in it."""

    name: str
    document: Document
    input: Mapping[str, str]
    locks: tuple[Expression, ...]
    steps: Mapping[str, DraftStep]
    output: Mapping[str, Expression]


def draft(text: str, file: str) -> Draft:
    """Read a flow document.

    Raises:
        FlowError: no YAML, or not of the shape of a flow; names every fault.
    """
    try:
        document = load(text, file)
    except DocumentError as error:
        raise FlowError([Problem(error.position, "", error.reason)]) from error
    reader = _Reader(document)
    result = reader.flow()
    if reader.problems:
        raise FlowError(reader.problems)
    return result


class _Reader:
    """Takes the document apart and collects what is wrong with its shape."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[Problem] = []

    def wrong(self, path: Path, reason: str) -> None:
        step = str(path[1]) if len(path) > 1 and path[0] == "steps" else ""
        self.problems.append(Problem(self.document.where(path), step, reason))

    def flow(self) -> Draft:
        root = self.mapping(self.document.data, ())
        self.known(root, _FLOW_KEYS, ())
        name = self.text(root.get("flow"), ("flow",), "the document needs a name, 'flow: ...'")
        steps = {
            key: self.step(key, value) for key, value in self.mapping(root.get("steps"), ("steps",)).items()
        }
        declared = self.mapping(root.get("input"), ("input",)).items()
        return Draft(
            name=name,
            document=self.document,
            input={key: self.text(value, ("input", key), "an input needs a type") for key, value in declared},
            locks=tuple(
                self.expression(lock, ("lock", i))
                for i, lock in enumerate(self.list(root.get("lock"), ("lock",)))
            ),
            steps=steps,
            output=self.expressions(root.get("output"), ("output",)),
        )

    def step(self, name: str, value: object) -> DraftStep:
        path: Path = ("steps", name)
        body = self.mapping(value, path)
        self.known(body, _STEP_KEYS, path)
        if not _STEP_NAME.fullmatch(name) or name == INPUT:
            self.wrong(
                path, f"{name!r} cannot name a step; use letters, digits, '_' and '-', and not '{INPUT}'"
            )
        use, flow = (
            self.text(body[key], (*path, key), f"'{key}' needs a name") if key in body else ""
            for key in ("use", "flow")
        )
        if ("use" in body) == ("flow" in body):
            self.wrong(path, "needs either 'use' (a step) or 'flow' (a sub-flow)")
        for key in ("on", "retry", "timeout"):
            if flow and key in body:
                self.wrong((*path, key), f"'{key}' belongs to the steps of the sub-flow")
        after = self.list(body.get("after"), (*path, "after"))
        return DraftStep(
            name=name,
            use=use,
            flow=flow,
            arguments=self.expressions(body.get("with"), (*path, "with")),
            on=self.expression(body["on"], (*path, "on")) if "on" in body else None,
            after=tuple(
                self.text(item, (*path, "after", i), "'after' lists steps") for i, item in enumerate(after)
            ),
            retry=self.retry(body.get("retry"), (*path, "retry")),
            timeout=self.duration(body.get("timeout"), (*path, "timeout")),
        )

    def known(self, body: Mapping[str, object], keys: frozenset[str], path: Path) -> None:
        for key in body.keys() - keys:
            self.wrong((*path, key), f"{key!r} is not known here; known are {', '.join(sorted(keys))}")

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

    def expressions(self, value: object, path: Path) -> dict[str, Expression]:
        return {key: self.expression(item, (*path, key)) for key, item in self.mapping(value, path).items()}

    def expression(self, value: object, path: Path) -> Expression:
        try:
            return parse(value)
        except ValueError as error:
            self.wrong(path, str(error))
            return Constant(None)

    def retry(self, value: object, path: Path) -> int | None:
        if value is None:
            return None
        if type(value) is not int or not 0 <= value <= 100:
            self.wrong(path, "'retry' is how often to try again, 0 to 100")
            return None
        return value

    def duration(self, value: object, path: Path) -> float | None:
        """Seconds, from `90`, `1.5m`, `60s`, `500ms`, `2h`."""
        if value is None:
            return None
        match = _DURATION.fullmatch(str(value)) or _DURATION.fullmatch(f"{value}s")
        seconds = float(match[1]) * _UNIT_SECONDS[match[2]] if match else 0.0
        if seconds <= 0:
            self.wrong(path, f"{value!r} is no duration; write 60s, 5m, 500ms or seconds")
            return None
        return seconds
