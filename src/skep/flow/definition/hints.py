"""Type hints as values: which may flow into which, the fields of one, and how one is written."""

import ast
import dataclasses
import types
import typing
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Annotated, Any, Literal, NewType, Union, get_args, get_type_hints

import msgspec

from skep.flow.definition import syntax

Hint = Any
"""What may stand after the colon of a parameter: a class, a NewType, a generic alias, a union."""

BUILT_IN: dict[str, Hint] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "None": None,
    "object": object,
}

_DEEPEST = 32


def read(text: str, names: Mapping[str, Hint]) -> Hint:
    """The type that `text` names, e.g. `list[ReplicaId]`, `dict[str, int]`, `X | None`.

    Raises:
        ValueError: not a type, or a name that is not in `names` or built in.
    """
    try:
        tree = syntax.parse(text)
    except ValueError as error:
        raise ValueError(f"{text[:80]!r} is not a type") from error
    return _read(tree, names, 0)


def _read(node: ast.expr, names: Mapping[str, Hint], depth: int) -> Hint:
    if depth > _DEEPEST:
        raise ValueError(f"a type is nested deeper than {_DEEPEST}")
    match node:
        case ast.Constant(value=None):
            return None
        case ast.Name(id=name) if name in BUILT_IN or name in names:
            return BUILT_IN.get(name, names.get(name))
        case ast.Name(id=name):
            raise ValueError(f"there is no type {name!r}")
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return Union[_read(left, names, depth + 1), _read(right, names, depth + 1)]  # noqa: UP007  (NewTypes take part)
        case ast.Subscript(value=ast.Name(id="list"), slice=item):
            return list[_read(item, names, depth + 1)]  # type: ignore[misc]
        case ast.Subscript(value=ast.Name(id="dict"), slice=ast.Tuple(elts=[key, value])):
            return dict[_read(key, names, depth + 1), _read(value, names, depth + 1)]  # type: ignore[misc]
    raise ValueError(
        f"{ast.unparse(node)[:80]!r} is not a type; write a name, list[X], dict[str, X] or X | None"
    )


def describe(hint: Hint) -> str:
    """How a person writes the type: `list[ReplicaId]`, `Port | None`."""
    if hint is None or hint is type(None):
        return "None"
    if is_union(hint):
        return " | ".join(describe(member) for member in get_args(hint))
    if origin_of(hint) is Annotated:
        return describe(get_args(hint)[0])
    if origin_of(hint) is Literal:
        return f"Literal[{', '.join(map(repr, get_args(hint)))}]"
    if (origin := origin_of(hint)) is not None:
        inside = ", ".join("..." if item is Ellipsis else describe(item) for item in get_args(hint))
        return f"{getattr(origin, '__name__', origin)}[{inside}]"
    return str(getattr(hint, "__name__", hint))


def origin_of(hint: Hint) -> Any:
    """`list` of list[int]; None of what has no brackets."""
    return typing.get_origin(hint)


def is_union(hint: Hint) -> bool:
    return origin_of(hint) in (Union, types.UnionType)


def members(hint: Hint) -> tuple[Hint, ...]:
    """The members of a union; of anything else the hint itself."""
    return get_args(hint) if is_union(hint) else (hint,)


def bare(hint: Hint) -> Hint:
    """Without NewType and Annotated around it."""
    while True:
        if isinstance(hint, NewType):
            hint = hint.__supertype__
        elif origin_of(hint) is Annotated:
            hint = get_args(hint)[0]
        else:
            return type(None) if hint is None else hint


def fits(source: Hint, target: Hint) -> bool:
    """Whether every value of `source` may be given where `target` is asked for.

    The same type; a NewType where its base is asked for (not the reverse); X for X | None; a subclass; int
    for float; lists, tuples and dicts by their elements.  bool is not taken for an int: it is never meant.
    """
    if (
        target in (Any, object)
        or source == target
        or (source in (None, type(None)) and target in (None, type(None)))
    ):
        return True
    if origin_of(source) is Annotated or origin_of(target) is Annotated:
        return fits(_unannotated(source), _unannotated(target))
    if is_union(source):
        return all(fits(member, target) for member in get_args(source))
    if is_union(target):
        return any(fits(source, member) for member in get_args(target))
    if isinstance(source, NewType):
        return fits(source.__supertype__, target)
    if isinstance(target, NewType) or source in (Any, object):
        return False
    return _fits_class(source, target)


def _fits_class(source: Hint, target: Hint) -> bool:
    if origin_of(source) is Literal:
        return all(_literal_fits(value, target) for value in get_args(source))
    if origin_of(target) is Literal:
        return False
    source_class, target_class = origin_of(source) or source, origin_of(target) or target
    if not (isinstance(source_class, type) and isinstance(target_class, type)):
        return False
    if typing.is_typeddict(source_class) or typing.is_typeddict(target_class):
        return _keys_fit(source_class, target)
    if (source_class, target_class) == (int, float):
        return True
    if source_class is bool and target_class is not bool:
        return False
    return issubclass(source_class, target_class) and _elements_fit(source, target)


def _keys_fit(source: Hint, target: Hint) -> bool:
    """A mapping whose keys are known, for one of the same keys or for a dict."""
    given = fields(source) if typing.is_typeddict(source) else None
    if given is None:
        return False
    wanted = fields(target) if typing.is_typeddict(target) else None
    if wanted is not None:
        return given.keys() == wanted.keys() and all(fits(given[key], wanted[key]) for key in given)
    if not issubclass(dict, origin_of(target) or target):
        return False
    key, value = get_args(target) or (str, object)
    return fits(str, key) and all(fits(hint, value) for hint in given.values())


def _literal_fits(value: object, target: Hint) -> bool:
    return value in get_args(target) if origin_of(target) is Literal else fits(type(value), target)


def _elements_fit(source: Hint, target: Hint) -> bool:
    wanted = get_args(target)
    if not wanted or all(item is Any for item in wanted):
        return True
    given = get_args(source)
    if (origin_of(source) or source) is tuple and given:
        return _tuple_fits(given, wanted)
    return len(given) == len(wanted) and all(map(fits, given, wanted))


def _tuple_fits(given: tuple[Hint, ...], wanted: tuple[Hint, ...]) -> bool:
    if wanted[-1] is Ellipsis or len(wanted) == 1:  # tuple[X, ...] or Sequence[X]
        return all(fits(item, wanted[0]) for item in given if item is not Ellipsis)
    return given[-1] is not Ellipsis and len(given) == len(wanted) and all(map(fits, given, wanted))


def _unannotated(hint: Hint) -> Hint:
    return get_args(hint)[0] if origin_of(hint) is Annotated else hint


def fields(hint: Hint) -> dict[str, Hint] | None:
    """The fields of a Struct, dataclass or TypedDict with their types; None if it has no named fields."""
    kind = bare(hint)
    kind = origin_of(kind) or kind
    if not isinstance(kind, type):
        return None
    if issubclass(kind, msgspec.Struct) or dataclasses.is_dataclass(kind) or typing.is_typeddict(kind):
        return get_type_hints(kind, include_extras=True)
    return None


def required(hint: Hint) -> frozenset[str]:
    """The names of those fields that have no default."""
    kind = origin_of(bare(hint)) or bare(hint)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return frozenset(field.name for field in msgspec.structs.fields(kind) if field.required)
    if dataclasses.is_dataclass(kind):
        missing = dataclasses.MISSING
        return frozenset(
            f.name
            for f in dataclasses.fields(kind)
            if f.default is missing and f.default_factory is missing and f.init
        )
    return frozenset(getattr(kind, "__required_keys__", ()))


def is_embeddable(hint: Hint) -> bool:
    """Whether values may stand inside a text: str and int only, so that nothing surprising is written."""
    plain = bare(hint)
    if origin_of(plain) is Literal:
        return all(type(value) in (str, int) for value in get_args(plain))
    return isinstance(plain, type) and issubclass(plain, str | int) and not issubclass(plain, bool)


def _same(value: Hint, _name: str) -> Hint:
    return value


def element(hint: Hint) -> Hint | None:
    """What the items of a list are to be, if a list may stand for the hint; None if it may not."""
    for member in members(hint):
        kind = bare(member)
        origin = origin_of(kind) or kind
        if kind in (Any, object):
            return object
        if (
            isinstance(origin, type)
            and not issubclass(origin, str | Mapping)
            and issubclass(origin, Collection)
        ):
            return (*get_args(kind), object)[0]
    return None


def shape(hint: Hint) -> Callable[[str], Hint | None] | None:
    """What the value of a key is to be, if a mapping may stand for the hint; None if it may not."""
    for member in members(hint):
        kind = bare(member)
        if kind in (Any, object):
            return partial(_same, object)
        if (known := fields(kind)) is not None:
            return known.get
        origin = origin_of(kind) or kind
        if isinstance(origin, type) and issubclass(origin, Mapping):
            value = (*get_args(kind), object, object)[1]
            return partial(_same, value)
    return None
