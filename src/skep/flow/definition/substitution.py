"""Expressions in place of references: what inlining a sub-flow comes to."""

from collections.abc import Callable

import msgspec

from skep.flow.definition.expressions import (
    Constant,
    Expression,
    Fields,
    Guarded,
    Items,
    Operation,
    Path,
    Reference,
    Text,
    follow,
    text_of,
)


def substitute(expression: Expression, replace: Callable[[Reference], Expression]) -> Expression:
    """The same with every reference replaced; what becomes constant is folded."""
    match expression:
        case Constant():
            return expression
        case Reference():
            return replace(expression)
        case Text(parts):
            return text_of([piece for part in parts for piece in _pieces(part, replace)])
        case Items(items):
            return Items(tuple(substitute(item, replace) for item in items))
        case Fields(fields):
            return Fields({key: substitute(item, replace) for key, item in fields.items()})
        case Operation(operator, operands):
            return Operation(operator, tuple(substitute(item, replace) for item in operands))
        case Guarded(condition, value):
            return Guarded(substitute(condition, replace), substitute(value, replace))


def both(*conditions: Expression | None) -> Expression | None:
    """The condition that all of them hold; None if there is none."""
    operands: list[Expression] = []
    for condition in conditions:
        if isinstance(condition, Operation) and condition.operator == "and":
            operands += condition.operands
        elif condition is not None:
            operands.append(condition)
    return Operation("and", tuple(operands)) if len(operands) > 1 else next(iter(operands), None)


def outward(expression: Expression, levels: int) -> Expression:
    """The same, for use within so many more fan-outs."""

    def replace(reference: Reference) -> Expression:
        if not reference.is_local:
            return reference
        return Reference(reference.source, reference.path, reference.up + levels)

    return substitute(expression, replace) if levels else expression


def extend(value: Expression, path: Path, hint: object) -> Expression:
    """The field at `path` of what the expression will be; `hint` is the type of a constant.

    Raises:
        ValueError: it cannot be said before the run.
    """
    if not path:
        return value
    match value:
        case Reference(source, beginning, up):
            return Reference(source, (*beginning, *path), up)
        case Fields(fields) if path[0] in fields:
            return extend(fields[path[0]], path[1:], object)
        case Guarded(condition, inner):
            return Guarded(condition, extend(inner, path, hint))
        case Constant(None):
            return value
        case Constant(constant):
            return Constant(msgspec.to_builtins(follow(msgspec.convert(constant, hint), path)))
    raise ValueError(
        f"{'.'.join(path)} cannot be taken from a text or a list, nor from a field left to its default"
    )


def depth(expression: Expression) -> int:
    """How deeply it is nested; 1 if it is not."""
    match expression:
        case Items(items) | Operation(operands=items):
            return 1 + max(map(depth, items), default=0)
        case Fields(fields):
            return 1 + max(map(depth, fields.values()), default=0)
        case Guarded(condition, value):
            return 1 + max(depth(condition), depth(value))
        case _:
            return 1


def _pieces(part: str | Reference, replace: Callable[[Reference], Expression]) -> tuple[str | Reference, ...]:
    return _in_text(replace(part)) if isinstance(part, Reference) else (part,)


def _in_text(value: Expression) -> tuple[str | Reference, ...]:
    """Where a guarded value may stand in a text, it is known that the guard holds."""
    match value:
        case Constant(constant):
            return (f"{constant}",)
        case Reference():
            return (value,)
        case Text(parts):
            return parts
        case Guarded(value=inner):
            return _in_text(inner)
        case _:
            raise ValueError("a list, a mapping or a condition cannot stand inside a text")
