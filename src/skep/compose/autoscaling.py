"""`x-skep.scale` of a service: how many replicas it has, by what they do."""

from typing import Any

import msgspec

from skep.compose.cursor import Cursor
from skep.compose.problems import closest
from skep.model.spec import Autoscale

_FIELDS = {field.name for field in msgspec.structs.fields(Autoscale)}
_SPANS = frozenset({"latency", "up_cooldown", "down_cooldown", "idle"})
MOST = 1_000_000
MOST_REPLICAS = 1000
"""Of an app (control/apps/validation.py)."""


def read_scale(cursor: Cursor) -> Autoscale | None:
    if not cursor.exists:
        return None
    if not isinstance(cursor.node.value, dict):
        cursor.error("must be a mapping, like {min: 2, max: 10, cpu: 50}")
        return None
    values = {key: _value(key, value) for key, value in cursor.entries()}
    policy = Autoscale(**{key: value for key, value in values.items() if value is not None})
    if policy.min > policy.max:
        cursor.error(f"min ({policy.min}) is more than max ({policy.max})")
    return policy


def _value(key: str, value: Cursor) -> Any:
    if key not in _FIELDS:
        close = closest(key, _FIELDS)
        hint = f"did you mean {close}?" if close else f"known are {', '.join(sorted(_FIELDS))}"
        value.error(f"unknown key {key[:40]!r}; {hint}")
        return None
    if key in _SPANS:
        return value.duration()
    if key == "requests":
        return value.number(0.001, MOST)
    return value.integer(0 if key == "min" else 1, MOST_REPLICAS)
