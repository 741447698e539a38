"""Conditions of steps: the part of Python's expressions that a `when:` may use.

$check.risky and $input.size > 10        not ($input.mode in ['dry', 'test'])        1 < $place.port <= 1024
"""

import ast
import re
from collections.abc import Mapping

from skep.flow.definition import syntax
from skep.flow.definition.expressions import (
    BRACED,
    DOTTED,
    Constant,
    Expression,
    Items,
    Operation,
    Operator,
    Reference,
    constant_of,
    parse,
)
from skep.flow.definition.substitution import both

_DEEPEST = 32
_TEXT = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
_PIECE = re.compile(rf"({_TEXT})|\$(?:({DOTTED})|\{{({BRACED})\}})", re.DOTALL)
_WORDS = {"true": True, "false": False, "null": None}
_OPERATORS: Mapping[type[ast.cmpop], Operator] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.In: "in",
    ast.NotIn: "not in",
}
_GRAMMAR = (
    "a condition has $references, values, lists, ==, !=, <, <=, >, >=, in, not, and, or, and parentheses"
)


def condition(value: object) -> Expression:
    """Read a condition as it is written.

    Raises:
        ValueError: it is none; the message says what cannot stand there.
    """
    if isinstance(value, bool):
        return Constant(value)
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no condition")
    names: dict[str, Reference] = {}
    mark = "_"
    while mark in value:
        mark += "_"

    def name(match: re.Match[str]) -> str:
        if match[1]:
            return match[0]
        key = f"{mark}{len(names)}"
        source, *path = (match[2] or match[3]).split(".")
        names[key] = Reference(source, tuple(path))
        return f" {key} "

    try:
        return _read(syntax.parse(_PIECE.sub(name, value)), names, 0)
    except ValueError as error:
        raise ValueError(f"{value[:80]!r} is no condition: {error}") from error


def _read(node: ast.expr, names: Mapping[str, Reference], depth: int) -> Expression:
    if depth > _DEEPEST:
        raise ValueError(f"nested deeper than {_DEEPEST}")
    match node:
        case ast.Name(id=word) if word in names:
            return names[word]
        case ast.Name(id=word) if word in _WORDS:
            return Constant(_WORDS[word])
        case ast.Constant(value=str(text)):
            return parse(text)
        case ast.Constant(value=bool() | int() | float() | None as value):
            return constant_of(value)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return constant_of(-number)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return Operation("not", (_read(operand, names, depth + 1),))
        case ast.BoolOp(op=operator, values=values):
            operands = tuple(_read(value, names, depth + 1) for value in values)
            return Operation("and" if isinstance(operator, ast.And) else "or", operands)
        case ast.Compare(left=left, ops=operators, comparators=comparators):
            operands = tuple(_read(operand, names, depth + 1) for operand in (left, *comparators))
            return _chain(operands, operators)
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return _list(tuple(_read(item, names, depth + 1) for item in items))
        case ast.Name(id=word):
            raise ValueError(f"{word!r} is no value; write '{word}' for a text, ${word} for a reference")
    raise ValueError(f"{_unparse(node, names)!r} cannot stand there; {_GRAMMAR}")


def _chain(operands: tuple[Expression, ...], operators: list[ast.cmpop]) -> Expression:
    """`a < b < c` is `a < b and b < c`."""
    compared = []
    for left, operator, right in zip(operands, operators, operands[1:], strict=False):
        if type(operator) not in _OPERATORS:
            raise ValueError("write == and != in place of 'is' and 'is not'")
        compared.append(Operation(_OPERATORS[type(operator)], (left, right)))
    chain = both(*compared)
    assert chain is not None  # noqa: S101  (a comparison has two sides)
    return chain


def _list(items: tuple[Expression, ...]) -> Expression:
    plain = [item.value for item in items if isinstance(item, Constant)]
    return Constant(plain) if len(plain) == len(items) else Items(items)


def _unparse(node: ast.expr, names: Mapping[str, Reference]) -> str:
    text = ast.unparse(node)
    for key, reference in reversed(list(names.items())):
        text = text.replace(key, str(reference))
    return text[:80]
