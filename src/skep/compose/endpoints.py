"""`x-skep.endpoints` of a service: texts like `shop.localhost/api`, or mappings."""

from typing import Any

import msgspec

from skep.compose.cursor import Cursor
from skep.compose.problems import closest
from skep.model.endpoints import check_endpoint, split
from skep.model.errors import InvalidInput
from skep.model.spec import EndpointSpec

_FIELDS = {field.name: field for field in msgspec.structs.fields(EndpointSpec)}


def read_endpoints(cursor: Cursor, project: str) -> tuple[EndpointSpec, ...]:
    """One that says no host has `PROJECT.localhost`."""
    if isinstance(cursor.node.value, str | dict):
        found = [_read(cursor, project)]
    else:
        if cursor.exists and not isinstance(cursor.node.value, list):
            cursor.error("must be a list of texts like shop.localhost/api, or of mappings")
        found = [_read(item, project) for item in cursor.items()]
    return tuple(one for one in found if one is not None)


def _read(cursor: Cursor, project: str) -> EndpointSpec | None:
    values = _mapping(cursor) if isinstance(cursor.node.value, dict) else _text(cursor)
    if values is None:
        return None
    host = str(values.pop("host", "") or "") or f"{project}.localhost"
    try:
        spec = msgspec.convert(values | {"host": host.lower()}, EndpointSpec, strict=False)
        return check_endpoint(spec)
    except (msgspec.ValidationError, InvalidInput) as error:
        cursor.error(error.message if isinstance(error, InvalidInput) else str(error))
        return None


def _text(cursor: Cursor) -> dict[str, Any] | None:
    text = cursor.text()
    if text is None:
        return None
    host, path = split(text)
    return {"host": host, "path": path}


def _mapping(cursor: Cursor) -> dict[str, Any] | None:
    values: dict[str, Any] = {}
    for key, value in cursor.entries():
        if key not in _FIELDS:
            close = closest(key, _FIELDS)
            hint = f"did you mean {close}?" if close else f"known are {', '.join(_FIELDS)}"
            value.error(f"unknown key {key[:40]!r}; {hint}")
            return None
        values[key] = value.duration() if key == "timeout" else value.node.plain()
    return values
