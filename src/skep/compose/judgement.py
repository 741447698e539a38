"""Whether a value is as a JSON schema says: yes or no, at once.

Nearly every Compose file is as it should be, and to see that takes a page of code.  Only for one that is not
`jsonschema` is imported, which takes longer than all else that reads the file, and says what is wrong where.
Both judge alike, as tests/compose/test_judgement.py sees to.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

KEYWORDS = frozenset(
    {
        *("$ref", "type", "enum", "oneOf", "pattern", "minimum", "maximum", "items", "uniqueItems"),
        *("properties", "patternProperties", "additionalProperties", "required"),
    }
)
"""What is judged; all others of the published schema say nothing of a value."""
_DEFINITIONS = "#/definitions/"


class Judge:
    """Judges by the schema and its definitions."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema

    def allows(self, value: Any) -> bool:
        return self._fits(value, self._schema)

    def _fits(self, value: Any, schema: Schema) -> bool:
        if "$ref" in schema:  # what stands beside it does not count, up to draft 7
            return self._fits(value, self._schema["definitions"][schema["$ref"].removeprefix(_DEFINITIONS)])
        if "type" in schema and not _is(value, schema["type"]):
            return False
        if "enum" in schema and not (isinstance(value, str) and value in schema["enum"]):
            return False
        if "oneOf" in schema and sum(self._fits(value, one) for one in schema["oneOf"]) != 1:
            return False
        match value:
            case dict():
                return self._entries_fit(value, schema)
            case list():
                return self._items_fit(value, schema)
            case str():
                return "pattern" not in schema or re.search(schema["pattern"], value) is not None
            case bool() | None:
                return True
            case _:
                return not (value < schema.get("minimum", value) or value > schema.get("maximum", value))

    def _entries_fit(self, value: dict[str, Any], schema: Schema) -> bool:
        known: Schema = schema.get("properties", {})
        patterns: Schema = schema.get("patternProperties", {})
        others = schema.get("additionalProperties", True)
        for key, entry in value.items():
            wanted = [known[key]] if key in known else []
            wanted += [one for pattern, one in patterns.items() if re.search(pattern, key)]
            if not wanted and others is False:
                return False
            if not wanted and others is not True:
                wanted = [others]
            if not all(self._fits(entry, one) for one in wanted):
                return False
        return all(key in value for key in schema.get("required", ()))

    def _items_fit(self, value: list[Any], schema: Schema) -> bool:
        if schema.get("uniqueItems") and len({json.dumps(item, sort_keys=True) for item in value}) < len(
            value
        ):
            return False
        return "items" not in schema or all(self._fits(item, schema["items"]) for item in value)


def _is(value: Any, wanted: str | list[str]) -> bool:
    if isinstance(wanted, list):
        return any(_is(value, one) for one in wanted)
    match wanted:
        case "string":
            return isinstance(value, str)
        case "boolean":
            return is_boolean(value)
        case "object":
            return isinstance(value, dict)
        case "array":
            return isinstance(value, list)
        case "null":
            return value is None
        case "integer":
            whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
            return whole and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
    return False


def is_boolean(value: object) -> bool:
    """A variable can only make text, so text that reads as a boolean is one."""
    return isinstance(value, bool) or value in ("true", "false")
