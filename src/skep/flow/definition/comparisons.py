"""Which types can be compared with which, and the types of values as they are written."""

from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from typing import Any, Literal, TypedDict, Union, get_args

from skep.flow.definition.hints import Hint, bare, describe, element, members, origin_of

_ORDERED = (str, date, timedelta)


def optional(hint: Hint) -> Hint:
    return Union[hint, None]  # noqa: UP007  (NewTypes take part)


def certain(hint: Hint) -> Hint:
    """The same, when it is known not to be None."""
    rest = tuple(member for member in members(hint) if member not in (None, type(None)))
    return Union[rest] if rest else hint  # noqa: UP007


def one_of(hints: Iterable[Hint]) -> Hint:
    """Their union; `object` of none at all.  Mappings with the same keys become one."""
    found = list(dict.fromkeys(hints))
    written = [hint for hint in found if getattr(hint, "is_written", False)]
    if (
        written
        and len({frozenset(hint.__annotations__) for hint in written}) == 1
        and len(written) == len(found)
    ):
        names = written[0].__annotations__
        return mapping({name: one_of(hint.__annotations__[name] for hint in written) for name in names})
    return Union[tuple(found)] if found else object  # noqa: UP007


def mapping(fields: Mapping[str, Hint]) -> Hint:
    """The type of a mapping written in the document."""
    name = "{" + ", ".join(f"{key}: {describe(hint)}" for key, hint in fields.items()) + "}"
    kind = TypedDict(name, dict(fields))  # type: ignore[misc]  # noqa: UP013
    kind.is_written = True  # type: ignore[attr-defined]
    return kind


def constant(value: object) -> Hint:
    """The type of plain data."""
    if isinstance(value, list):
        return list[one_of(map(constant, value))]  # type: ignore[misc]
    if isinstance(value, dict):
        return mapping({key: constant(item) for key, item in value.items()})
    return type(value)


def literal(value: object) -> Hint:
    """The type of plain data, as narrow as can be."""
    if isinstance(value, list):
        return list[one_of(map(literal, value))]  # type: ignore[misc]
    return Literal[value] if isinstance(value, str | int) else type(value)


def may_equal(left: Hint, right: Hint) -> bool:
    """Some value of one may be equal to some value of the other."""
    return any(_alike(bare(one), bare(other)) for one in members(left) for other in members(right))


def may_order(left: Hint, right: Hint) -> bool:
    """Every value of one is smaller than, equal to or greater than every value of the other."""
    return all(_ordered(_classes(one), _classes(other)) for one in members(left) for other in members(right))


def may_contain(container: Hint, item: Hint) -> bool:
    """`item in container` makes sense."""
    return all(_contains(bare(member), item) for member in members(container))


def _contains(container: Hint, item: Hint) -> bool:
    if container is str:
        return all(str in _classes(member) for member in members(item))
    kind = origin_of(container) or container
    if isinstance(kind, type) and issubclass(kind, Mapping):
        return may_equal((*get_args(container), object)[0], item)
    inside = element(container)
    return container not in (Any, object) and inside is not None and may_equal(inside, item)


def _alike(left: Hint, right: Hint) -> bool:
    if Any in (left, right) or object in (left, right):
        return True
    if origin_of(left) is Literal and origin_of(right) is Literal:
        return any(value in get_args(right) for value in get_args(left))
    return any(_same_class(one, other) for one in _classes(left) for other in _classes(right))


def _same_class(one: Any, other: Any) -> bool:
    if one is bool or other is bool:
        return one is other
    if not (isinstance(one, type) and isinstance(other, type)):
        return False
    return issubclass(one, other) or issubclass(other, one) or {one, other} == {int, float}


def _classes(hint: Hint) -> set[Any]:
    plain = bare(hint)
    if origin_of(plain) is Literal:
        return {type(value) for value in get_args(plain)}
    return {origin_of(plain) or plain}


def _ordered(left: set[Any], right: set[Any]) -> bool:
    return all(_in_order(one, other) for one in left for other in right)


def _in_order(one: Any, other: Any) -> bool:
    if not (isinstance(one, type) and isinstance(other, type)) or bool in (one, other):
        return False
    if issubclass(one, int | float) and issubclass(other, int | float):
        return True
    return any(issubclass(one, kind) and issubclass(other, kind) for kind in _ORDERED)
