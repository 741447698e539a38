"""Checks a document against the published Compose schema, with our lines and in the user's words."""

import json
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from typing import Any, Protocol

from skep.compose.judgement import allows, is_boolean, published_schema
from skep.compose.problems import MOST_ERRORS, Problems, closest
from skep.documents import Node


class Fault(Protocol):
    """What we read of a jsonschema.ValidationError."""

    validator: Any
    validator_value: Any
    instance: Any
    schema: Any
    message: str
    absolute_path: Sequence[str | int]
    context: Any


def check_shape(root: Node, problems: Problems) -> None:
    """Record an error for everything in the tree that the schema does not allow."""
    plain = root.plain()
    if allows(plain):
        return
    for fault in islice(_validator().iter_errors(plain), MOST_ERRORS + 1):
        cause = _cause(fault)
        path = tuple(cause.absolute_path)
        for place, message in _explain(cause, path):
            problems.error(_nearest(root, place).position, f"{_words(path)}: {message}" if path else message)


@cache
def _validator() -> Any:
    from jsonschema import Draft7Validator, ValidationError
    from jsonschema.validators import extend

    def unique_items(_: Any, wanted: bool, instance: Any, __: Any) -> Iterator[ValidationError]:
        # jsonschema's own compares every pair, which a hostile list turns into minutes.
        if wanted and isinstance(instance, list):
            seen: set[str] = set()
            for item in instance:
                key = json.dumps(item, sort_keys=True)
                if key in seen:
                    yield ValidationError(f"{key[:80]} is given twice")
                seen.add(key)

    types = Draft7Validator.TYPE_CHECKER.redefine("boolean", lambda _, value: is_boolean(value))
    checker = extend(Draft7Validator, {"uniqueItems": unique_items}, type_checker=types)  # type: ignore[no-untyped-call]
    return checker(published_schema())


def _cause(fault: Fault) -> Fault:
    """Of the alternatives of a `oneOf`, the one the author meant: its type is the type that was written."""
    while fault.validator == "oneOf" and fault.context:
        branches = [branch for branch in fault.context if not _wrong_type(branch, fault)]
        if not branches:
            return fault
        fault = max(branches, key=lambda branch: len(branch.absolute_path))
    return fault


def _wrong_type(branch: Fault, parent: Fault) -> bool:
    return branch.validator == "type" and len(branch.absolute_path) == len(parent.absolute_path)


Explanation = tuple[tuple[str | int, ...], str]


def _explain(fault: Fault, path: tuple[str | int, ...]) -> Iterator[Explanation]:
    match fault.validator:
        case "additionalProperties":
            known = list(fault.schema.get("properties", ()))
            for key in islice(_unknown_keys(fault), 10):
                yield (*path, key), _unknown(key, known)
        case "required":
            missing = [key for key in fault.validator_value if key not in fault.instance]
            yield path, f"{', '.join(missing)} is missing"
        case "type" | "oneOf":
            yield path, f"must be {_wanted(fault.schema)}, not {_kind(fault.instance)}{_hint(fault)}"
        case "enum":
            allowed = ", ".join(map(str, fault.validator_value))
            yield path, f"must be one of {allowed}, not {_clip(fault.instance)}"
        case "uniqueItems":
            yield path, fault.message
        case _:
            yield path, f"{_clip(fault.instance)} is not allowed here"


def _unknown_keys(fault: Fault) -> Iterator[str]:
    import re

    patterns = list(fault.schema.get("patternProperties", ()))
    for key in fault.instance:
        if key not in fault.schema.get("properties", ()) and not any(re.search(p, key) for p in patterns):
            yield key


def _unknown(key: str, known: list[str]) -> str:
    if not known:
        return f"the name {_clip(key)} is not allowed: use letters, digits, '.', '_' and '-'"
    close = closest(key, known)
    return f"unknown key {_clip(key)}" + (f"; did you mean {close!r}?" if close else "")


def _hint(fault: Fault) -> str:
    wanted = _types(fault.schema)
    if wanted == ["string"] and isinstance(fault.instance, int | float):
        return "; put it in quotes"
    return ""


def _wanted(schema: dict[str, Any]) -> str:
    names = list(dict.fromkeys(_TYPES[name] for name in _types(schema)))
    return " or ".join(names) or "of another type"


def _types(schema: dict[str, Any]) -> list[str]:
    if "$ref" in schema:
        return _types(published_schema()["definitions"][schema["$ref"].rsplit("/", 1)[1]])
    if "oneOf" in schema:
        return [name for branch in schema["oneOf"] for name in _types(branch)]
    types = schema.get("type", [])
    return [types] if isinstance(types, str) else list(types)


_TYPES = {
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "object": "a mapping",
    "array": "a list",
    "null": "empty",
}


def _kind(value: object) -> str:
    match value:
        case None:
            return "empty"
        case bool():
            return f"the boolean {str(value).lower()}"
        case int() | float():
            return f"the number {_clip(value)}"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _:
            return f"the text {_clip(value)}"


def _clip(value: object) -> str:
    if isinstance(value, int) and abs(value) > 10**20:
        return "that large"
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"


def _nearest(root: Node, path: tuple[str | int, ...]) -> Node:
    for key in path:
        if isinstance(root.value, dict) and key in root.value:
            root = root.value[str(key)]
        elif isinstance(root.value, list) and isinstance(key, int):
            root = root.value[key]
        else:
            break
    return root


def _words(path: tuple[str | int, ...]) -> str:
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{key[:80]}"
    return text.removeprefix(".")
