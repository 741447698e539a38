"""Whether a Compose file is as the schema says: yes at once, or perhaps not.

Nearly every file is as it should be, which `jsonschema_rs` sees in no time.  Only for another `jsonschema` is
imported, which takes longer than all else that reads the file, and says what is wrong where.  A yes is always
one of both, as tests/compose/test_judgement.py sees to.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs


@cache
def published_schema() -> dict[str, Any]:
    """The JSON schema of the Compose Specification.

    It is package data, unchanged: see `compose-spec.json.origin` for where it is from and its licence.
    """
    schema: dict[str, Any] = json.loads(Path(__file__).with_name("compose-spec.json").read_bytes())
    return schema


def allows(value: Any) -> bool:
    try:
        return _validator().is_valid(value)
    except ValueError:  # text that is none
        return False


def is_boolean(value: object) -> bool:
    """A variable can only make text, so text that reads as a boolean is one."""
    return isinstance(value, bool) or value in ("true", "false")


@cache
def _validator() -> jsonschema_rs.Draft7Validator:
    return jsonschema_rs.Draft7Validator(_with_texts(published_schema()))


def _with_texts(schema: Any) -> Any:
    """The same schema, which takes such a text where it takes a boolean."""
    if isinstance(schema, list):
        return [_with_texts(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _with_texts(value) for key, value in schema.items()}
    kinds = made.get("type")
    if kinds == "boolean" or (isinstance(kinds, list) and "boolean" in kinds):
        del made["type"]
        made["anyOf"] = [{"type": kinds}, {"enum": ["true", "false"]}]
    return made
