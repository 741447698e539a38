"""What may stand in a flow where a value is wanted: constants, references, texts with references in them.

$input.size      $place.host      agent.$place.host      ${place.host}-data      $$5 is a literal $5
"""

import operator
import re
from collections.abc import Callable, Iterator
from typing import Any, Literal, Union

import msgspec
from msgspec import Struct

INPUT = "input"
"""The source of references to the flow's own input."""
ITEM, INDEX = "item", "index"
"""Within a fan-out: the sources of references to the item and to its number, counted from 0."""

Path = tuple[str, ...]

_NAME = r"[A-Za-z_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
_FIELDS = r"(?:\.[A-Za-z_][A-Za-z0-9_]*)*"
_STEP = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
DOTTED, BRACED = rf"{_NAME}{_FIELDS}", rf"{_STEP}(?:\.{_NAME})*"
"""What may follow a `$`, and what may stand within `${}`: names without groups of their own.  Steps may have
names that begin with a digit; `$5` is money, `${5}` such a step."""
_TOKEN = re.compile(rf"\$(?:(\$)|({DOTTED})|\{{({BRACED})\}}|)")


class Constant(Struct, frozen=True, tag="constant", gc=False):
    """A value as it was written: plain data."""

    value: Any


class Reference(Struct, frozen=True, tag="reference", omit_defaults=True, gc=False):
    """A step's result (or, from `input`, a field of the flow's input), and the fields to follow into it.

    `up`: for `item` and `index`, of which fan-out: 0 the innermost around it, 1 the next one out.
    """

    source: str
    path: Path = ()
    up: int = 0

    @property
    def is_local(self) -> bool:
        """It means something within a fan-out only."""
        return self.source in (ITEM, INDEX)

    def __str__(self) -> str:
        name = ".".join((self.source, *self.path))
        return f"${{{name}}}" if name[0].isdigit() else f"${name}"


class Text(Struct, frozen=True, tag="text", gc=False):
    parts: tuple[str | Reference, ...]


class Items(Struct, frozen=True, tag="items", gc=False):
    items: tuple["Expression", ...]


class Fields(Struct, frozen=True, tag="fields", gc=False):
    fields: dict[str, "Expression"]


Operator = Literal["==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or", "not"]


class Operation(Struct, frozen=True, tag="operation", gc=False):
    """A condition, as in `when:`.  `not` has one operand, comparisons have two, `and` and `or` any number."""

    operator: Operator
    operands: tuple["Expression", ...]


class Guarded(Struct, frozen=True, tag="guarded", gc=False):
    """The value where the condition holds, else null: what a sub-flow with `when:` gives its caller."""

    condition: "Expression"
    value: "Expression"


Expression = Union[Constant, Reference, Text, Items, Fields, Operation, Guarded]  # noqa: UP007  (named in the classes above)
Lookup = Callable[[Reference], object]

_COMPARISONS: dict[str, Callable[[Any, Any], object]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda item, items: item in items,
    "not in": lambda item, items: item not in items,
}


def parse(value: object) -> Expression:
    """Read a value of the document.

    Raises:
        ValueError: a `$` that is followed by neither a name nor another `$`, a number that cannot be stored.
    """
    if isinstance(value, str):
        return _parse_text(value)
    if isinstance(value, list):
        items = tuple(parse(item) for item in value)
        plain = all(isinstance(item, Constant) for item in items)
        return (
            Constant([item.value for item in items if isinstance(item, Constant)]) if plain else Items(items)
        )
    if isinstance(value, dict):
        fields = {str(key): parse(item) for key, item in value.items()}
        plain = all(isinstance(item, Constant) for item in fields.values())
        constant = {key: item.value for key, item in fields.items() if isinstance(item, Constant)}
        return Constant(constant) if plain else Fields(fields)
    return constant_of(value)


def constant_of(value: Any) -> Constant:
    """A scalar.  Raises ValueError: JSON, as which plans are stored, does not give it back."""
    try:
        stored = msgspec.json.decode(msgspec.json.encode(value))
    except (OverflowError, UnicodeError) as error:
        raise ValueError(f"{repr(value)[:80]} cannot be stored: {error}") from error
    if stored != value or type(stored) is not type(value):
        raise ValueError(f"{repr(value)[:80]} cannot be stored as a number")
    return Constant(value)


def _parse_text(text: str) -> Expression:
    constant_of(text)
    parts: list[str | Reference] = []
    end = 0
    for match in _TOKEN.finditer(text):
        parts.append(text[end : match.start()])
        end = match.end()
        literal, name, braced = match.groups()
        if not (literal or name or braced):
            raise ValueError(f"in {text!r} a '$' is followed by no name; write '$$' for a literal '$'")
        parts.append("$" if literal else _reference(name or braced))
    return text_of([*parts, text[end:]])


def _reference(dotted: str) -> Reference:
    source, *path = dotted.split(".")
    return Reference(source, tuple(path))


def text_of(parts: list[str | Reference]) -> Expression:
    """The simplest expression of these parts; neighbouring texts are joined."""
    joined: list[str | Reference] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        elif part != "":
            joined.append(part)
    if not joined:
        return Constant("")
    if len(joined) == 1:
        return Constant(joined[0]) if isinstance(joined[0], str) else joined[0]
    return Text(tuple(joined))


def references(expression: Expression) -> Iterator[Reference]:
    """Every reference in it, also the repeated ones."""
    match expression:
        case Reference():
            yield expression
        case Text(parts):
            yield from (part for part in parts if isinstance(part, Reference))
        case Items(items):
            for item in items:
                yield from references(item)
        case Fields(fields):
            for item in fields.values():
                yield from references(item)
        case Operation(operands=operands):
            for item in operands:
                yield from references(item)
        case Guarded(condition, value):
            yield from references(condition)
            yield from references(value)


def evaluate(expression: Expression, lookup: Lookup) -> object:
    """Its value, with `lookup` answering the references."""
    match expression:
        case Constant(value):
            return value
        case Reference():
            return lookup(expression)
        case Text(parts):
            return "".join(part if isinstance(part, str) else f"{lookup(part)}" for part in parts)
        case Items(items):
            return [evaluate(item, lookup) for item in items]
        case Fields(fields):
            return {key: evaluate(item, lookup) for key, item in fields.items()}
        case Operation(operator, operands):
            return _operate(operator, operands, lookup)
        case Guarded(condition, value):
            return evaluate(value, lookup) if evaluate(condition, lookup) else None


def _operate(operator: Operator, operands: tuple[Expression, ...], lookup: Lookup) -> bool:
    """What is left out by `and` and `or` is not looked up."""
    values = (evaluate(operand, lookup) for operand in operands)
    match operator:
        case "and":
            return all(values)
        case "or":
            return any(values)
        case "not":
            return not next(values)
        case _:
            return bool(_COMPARISONS[operator](next(values), next(values)))


def follow(value: object, path: Path) -> object:
    """The field at the end of the path."""
    for name in path:
        value = value[name] if isinstance(value, dict) else getattr(value, name)
    return value
