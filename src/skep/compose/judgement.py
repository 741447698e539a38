"""Whether a Compose file is as the schema says: yes at once, or perhaps not.

Nearly every file is as it should be, which `jsonschema_rs` sees in no time.  Only for another `jsonschema` is
imported, which takes longer than all else that reads the file, and says what is wrong where.  A yes is always
one of both, as tests/compose/test_judgement.py sees to.
"""

from typing import Any

import jsonschema_rs

Schema = dict[str, Any]


class Judge:
    """Judges by the schema."""

    def __init__(self, schema: Schema) -> None:
        self._validator = jsonschema_rs.Draft7Validator(_with_texts(schema))

    def allows(self, value: Any) -> bool:
        try:
            return self._validator.is_valid(value)
        except ValueError:  # text that is none
            return False


def is_boolean(value: object) -> bool:
    """A variable can only make text, so text that reads as a boolean is one."""
    return isinstance(value, bool) or value in ("true", "false")


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
