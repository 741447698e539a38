"""Whether a condition is true or false for all values it may meet, and what is known once it holds."""

from functools import reduce

from skep.documents import Path
from skep.flow.definition import comparisons, hints
from skep.flow.definition.checking import type_of
from skep.flow.definition.expressions import Constant, Expression, Items, Operation, Reference
from skep.flow.definition.hints import Hint, describe
from skep.flow.definition.sources import UNKNOWN, Sources

_NOTHING: frozenset[Reference] = frozenset()
_TELLS = ("==", "<", "<=", ">", ">=", "in")
"""If one of these holds between a reference and something that is not None, the reference is not None."""


def check_condition(condition: Expression, sources: Sources, path: Path) -> None:
    """Note whatever is wrong with the condition."""
    match condition:
        case Operation("and" | "or" as operator, operands):
            for operand in operands:
                check_condition(operand, sources, path)
                known = certain_if(operand) if operator == "and" else certain_unless(operand)
                sources = sources.sure_of(known)
        case Operation("not", (operand,)):
            check_condition(operand, sources, path)
        case Operation(operator, (left, right)):
            _check_comparison(operator, left, right, sources, path)
        case Constant(bool()):
            pass
        case Reference():
            hint = sources.type_of(condition, path)
            if hint is not UNKNOWN and not hints.fits(hint, bool):
                sources.wrong(
                    path, f"a condition wants bool, but {condition} is {describe(hint)}; compare it"
                )
        case _:
            sources.wrong(path, "a condition wants bool; compare the value with another")


def certain_if(condition: Expression | None) -> frozenset[Reference]:
    """The references that are not None where the condition holds."""
    match condition:
        case Operation("and", operands):
            return reduce(frozenset.union, map(certain_if, operands), _NOTHING)
        case Operation("not", (operand,)):
            return certain_unless(operand)
        case Operation("!=", (Reference() as known, Constant(None)) | (Constant(None), Reference() as known)):
            return frozenset({known})
        case Operation(operator, (left, right)) if operator in _TELLS:
            return _told(left, right) | (_told(right, left) if operator != "in" else _NOTHING)
    return _NOTHING


def certain_unless(condition: Expression) -> frozenset[Reference]:
    """The references that are not None where the condition does not hold."""
    match condition:
        case Operation("or", operands):
            return reduce(frozenset.union, map(certain_unless, operands), _NOTHING)
        case Operation("not", (operand,)):
            return certain_if(operand)
        case Operation("==", (Reference() as known, Constant(None)) | (Constant(None), Reference() as known)):
            return frozenset({known})
    return _NOTHING


def _told(reference: Expression, other: Expression) -> frozenset[Reference]:
    if not isinstance(reference, Reference) or not isinstance(other, Constant):
        return _NOTHING
    values = other.value if isinstance(other.value, list) else [other.value]
    return _NOTHING if None in values else frozenset({reference})


def _check_comparison(
    operator: str, left: Expression, right: Expression, sources: Sources, path: Path
) -> None:
    one, other = _operand(left, sources, path), _operand(right, sources, path)
    if UNKNOWN in (one, other):
        return
    said, also = _said(left, one), _said(right, other)
    if operator in ("==", "!="):
        if not comparisons.may_equal(one, other):
            sources.wrong(path, f"{said} is never equal to {also}")
    elif operator in ("in", "not in"):
        if not comparisons.may_contain(other, one):
            sources.wrong(path, f"{said} is never in {also}")
    elif not comparisons.may_order(one, other):
        reason = f"{said} and {also} have no order"
        sources.wrong(path, f"{reason}{_advice(left, one) or _advice(right, other)}")


def _said(operand: Expression, hint: Hint) -> str:
    """The operand and its type, as a person writes them."""
    match operand:
        case Reference():
            return f"{operand} ({describe(hint)})"
        case Constant(value):
            return f"{value!r} ({describe(comparisons.constant(value))})"
        case _:
            return describe(hint)


def _advice(operand: Expression, hint: Hint) -> str:
    optional = any(member in (None, type(None)) for member in hints.members(hint))
    return f"; ask first whether it is there: {operand} != None and …" if optional else ""


def _operand(operand: Expression, sources: Sources, path: Path) -> Hint:
    match operand:
        case Operation():
            check_condition(operand, sources, path)
            return bool
        case Constant(value):
            return comparisons.literal(value)
        case Items(items):
            found = [_operand(item, sources, path) for item in items]
            return UNKNOWN if UNKNOWN in found else list[comparisons.one_of(found)]  # type: ignore[misc]
        case _:
            return type_of(operand, sources, path)
