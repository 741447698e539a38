"""`deploy.placement`: which hosts a service may run on, and over what its replicas are spread."""

from skep.compose.cursor import Cursor
from skep.model.errors import InvalidInput
from skep.model.placement import parse_constraint, parse_key
from skep.model.spec import Placement

MOST_PER_HOST = 10_000


def read_placement(placement: Cursor) -> Placement:
    constraints = placement.get("constraints")
    preferences = placement.get("preferences")
    return Placement(
        constraints=tuple(text for item in constraints.items() if (text := _constraint(item))),
        spread=tuple(key for item in preferences.items() if (key := _key(item.get("spread")))),
        max_per_host=placement.get("max_replicas_per_node").integer(0, MOST_PER_HOST) or None,
    )


def _constraint(cursor: Cursor) -> str:
    """In its normal form; "" where it is none."""
    text = cursor.text()
    try:
        return str(parse_constraint(text)) if text else ""
    except InvalidInput as error:
        cursor.error(error.message)
        return ""


def _key(cursor: Cursor) -> str:
    text = cursor.text()
    try:
        return parse_key(text) if text else ""
    except InvalidInput as error:
        cursor.error(error.message)
        return ""
