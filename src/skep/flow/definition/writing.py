"""Expressions, spans of time and limits as people write them in documents."""

import json
import re

from skep.flow.definition.expressions import (
    Constant,
    Expression,
    Fields,
    Guarded,
    Items,
    Operation,
    Reference,
    Text,
)
from skep.flow.definition.plan import Limit

_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "m"))
_GOES_ON = re.compile(r"[A-Za-z0-9_.-]")


def written(expression: Expression) -> str:
    """The expression as a document might say it; what a text is, is without quotes."""
    match expression:
        case Constant(str() as text):
            return text.replace("$", "$$")
        case Constant(value):
            return json.dumps(value, ensure_ascii=False, default=str)
        case Reference():
            return str(expression)
        case Text(parts):
            followers = (*parts[1:], "")
            return "".join(_part(part, follower) for part, follower in zip(parts, followers, strict=True))
        case Items(items):
            return f"[{', '.join(map(written, items))}]"
        case Fields(fields):
            return "{" + ", ".join(f"{key}: {written(value)}" for key, value in fields.items()) + "}"
        case Guarded(value=value):
            return written(value)
        case Operation("not", (operand,)):
            return f"not {_operand(operand)}"
        case Operation(operator, operands):
            return f" {operator} ".join(map(_operand, operands))


def span(seconds: float) -> str:
    """`90s`, `2h`, `12.5ms`: in the largest unit that it is a whole number of, at most two decimals."""
    for size, unit in _UNITS:
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{round(seconds, 2):g}s" if seconds >= 1 else f"{round(seconds * 1000, 2):g}ms"


def limit(limit: Limit) -> str:
    """`builds: 2`, `mail: 100/s`, or the key alone."""
    key = written(limit.key)
    if limit.concurrency is not None:
        return f"{key}: {limit.concurrency}"
    return key if limit.rate is None else f"{key}: {_rate(limit.rate)}"


def share(failures: float) -> str:
    """`3`, or `10%`."""
    return f"{failures:.0%}" if 0 < failures < 1 else f"{failures:.0f}"


def _rate(rate: float) -> str:
    for seconds, unit in ((1, "s"), (60, "m"), (3600, "h")):
        if rate * seconds >= 1:
            return f"{round(rate * seconds, 2):g}/{unit}"
    return f"{round(rate * 86400, 2):g}/d"


def _part(part: str | Reference, follower: str | Reference) -> str:
    """A reference needs braces where what follows would be read as part of it."""
    if isinstance(part, str):
        return part.replace("$", "$$")
    bare = not isinstance(follower, str) or not _GOES_ON.match(follower)
    said = str(part)
    return said if bare or said.endswith("}") else "${" + said[1:] + "}"


def _operand(operand: Expression) -> str:
    match operand:
        case Constant(str() as text):
            return repr(text.replace("$", "$$"))
        case Constant(None | bool() as value):
            return str(value)
        case Constant(list() as values):
            return f"[{', '.join(_operand(Constant(value)) for value in values)}]"
        case Items(items):
            return f"[{', '.join(map(_operand, items))}]"
        case Text():
            return repr(written(operand))
        case Guarded(value=value):
            return _operand(value)
        case Operation("and" | "or" | "not"):
            return f"({written(operand)})"
        case _:
            return written(operand)
