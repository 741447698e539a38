"""What people write on the command line for a flow: values, rates, files."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from skep.cli.failures import Exit, Failure

_RATE = re.compile(r"(\d+(?:\.\d+)?)(?:/([smhd]))?")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_PLAIN = ("int", "float", "bool", "object", "Any", "list", "dict", "tuple", "None")
"""Types whose values are written as JSON."""


def labels_of(given: Iterable[str], *, removable: bool = False) -> dict[str, str | None]:
    """`disk=ssd`; where labels are `removable`, `disk-` gives None.  Raises Failure: it is neither."""
    labels: dict[str, str | None] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals and removable and text.endswith("-"):
            labels[text[:-1]] = None
        elif equals and key:
            labels[key] = value
        else:
            more = ", or NAME- to remove it" if removable else ""
            raise Failure(f"{text!r} is no label.", Exit.INVALID, f"Write NAME=VALUE{more}.")
    return labels


def json_value(text: str) -> Any:
    """Raises Failure: it is no JSON."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        hint = "A text needs its quotes: '\"paid\"'."
        raise Failure(f"{text!r} is no JSON: {error}.", Exit.INVALID, hint) from error


def inputs(given: Iterable[str], types: Mapping[str, str]) -> dict[str, Any]:
    """`size=3` and the like, or a whole JSON object; `types` are those that the flow takes, as written.

    Raises:
        Failure: neither of the two.
    """
    values: dict[str, Any] = {}
    for item in given:
        name, equals, text = item.partition("=")
        if item.lstrip().startswith("{"):
            values |= json_value(item)
        elif equals and name:
            values[name] = value_of(text, types.get(name, ""))
        else:
            hint = "Write --input size=3, or --input '{\"size\": 3}'."
            raise Failure(f"{item!r} is no input.", Exit.INVALID, hint)
    return values


def value_of(text: str, hint: str) -> Any:
    """A text where the flow takes one; else JSON, if it is any."""
    if hint.startswith("str") or not (hint.startswith(_PLAIN) or text[:1] in ("{", "[", '"')):
        return text
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def rate_of(text: str | None) -> float | None:
    """`10/s`, `5/m` or `100/h` as a number per second.  Raises Failure: it is no rate."""
    if text is None:
        return None
    match = _RATE.fullmatch(text)
    if match is None:
        raise Failure(f"{text!r} is no rate.", Exit.INVALID, "Write it like 10/s, 5/m or 100/h.")
    return float(match[1]) / _SECONDS[match[2] or "s"]


def rate_text(rate: float | None) -> str:
    """As people write it: in the smallest unit in which it is at least 1."""
    if rate is None:
        return "-"
    unit = next((unit for unit, seconds in _SECONDS.items() if rate * seconds >= 1), "d")
    return f"{round(rate * _SECONDS[unit], 2):g}/{unit}"


def documents(paths: Iterable[Path]) -> dict[str, str]:
    """The texts of flow documents by file; a directory stands for the *.yaml in it.

    Raises:
        Failure: one cannot be read, there is none, or it is a bundle: the server does not know its steps yet.
    """
    texts: dict[str, str] = {}
    for path in paths:
        if (path / "bundle.yaml").exists():
            hint = f"`skep bundle push {path}` keeps nothing of a faulty one, and uses a good one not yet."
            raise Failure(f"{path.resolve()} is a bundle: a push checks it as a whole.", Exit.INVALID, hint)
        for file in sorted(path.glob("*.yaml")) if path.is_dir() else [path]:
            try:
                texts[str(file)] = file.read_text("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise Failure(f"{file} cannot be read: {error}", Exit.INVALID) from error
    if not texts:
        raise Failure("There is no flow document there.", Exit.INVALID, "Flow documents end in .yaml.")
    return texts
