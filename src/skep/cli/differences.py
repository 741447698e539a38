"""How two states of an app differ, as plans and releases print it."""

from collections.abc import Iterable

import msgspec

from skep.model.views.releases import DifferenceView


def print_differences(found: Iterable[DifferenceView]) -> None:
    """A line for each: `+` is new, `-` is gone, `~` is another value."""
    for one in found:
        if one.before is None:
            print(f"+ {one.path}: {_value(one.after)}")
        elif one.after is None:
            print(f"- {one.path}: {_value(one.before)}")
        else:
            print(f"~ {one.path}: {_value(one.before)} -> {_value(one.after)}")


def _value(value: object) -> str:
    return value if isinstance(value, str) and value.isprintable() else msgspec.json.encode(value).decode()
