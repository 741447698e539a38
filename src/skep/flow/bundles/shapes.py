"""Types as data, so that a process can tell another what its steps take and return.

Records and enumerations are named in a table and made anew on the other side, as Structs and Enums of the
same structure: what crosses is JSON, and that stays the same.
"""

import collections.abc
import dataclasses
import datetime
import decimal
import enum
import typing
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal, NewType, Union, get_args

import msgspec

from skep.flow.definition import hints
from skep.flow.definition.hints import Hint


class Plain(msgspec.Struct, frozen=True, tag="plain"):
    """A type that every process has."""

    name: str


class Generic(msgspec.Struct, frozen=True, tag="generic"):
    """`origin` is union, or a plain type; the "..." of a tuple is Plain("...")."""

    origin: str
    of: tuple["Shape", ...]


class LiteralOf(msgspec.Struct, frozen=True, tag="literal"):
    values: tuple[str | int | bool | None, ...]


class Named(msgspec.Struct, frozen=True, tag="named"):
    """A definition in the table, by its key."""

    key: str


Shape = Plain | Generic | LiteralOf | Named


class Field(msgspec.Struct, frozen=True, omit_defaults=True):
    """`written` is its name in JSON; `default` is JSON, None if it must be given."""

    name: str
    written: str
    shape: Shape
    default: str | None = None


class NewTypeOf(msgspec.Struct, frozen=True, tag="new"):
    name: str
    base: Shape


class Record(msgspec.Struct, frozen=True, tag="record", omit_defaults=True):
    """A Struct, dataclass or TypedDict.  `tag` and `tag_field` as msgspec knows them."""

    name: str
    fields: tuple[Field, ...]
    array: bool = False
    strict: bool = False
    tag: str | int | None = None
    tag_field: str | None = None


class Enumeration(msgspec.Struct, frozen=True, tag="enum"):
    name: str
    members: dict[str, str | int]


Definition = NewTypeOf | Record | Enumeration
Table = dict[str, Definition]

_PLAIN: dict[str, Hint] = {
    kind.__name__: kind
    for kind in (
        *(str, int, float, bool, bytes, object, list, dict, tuple, set, frozenset),
        *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta, decimal.Decimal, uuid.UUID),
        *(collections.abc.Sequence, collections.abc.Mapping, collections.abc.Collection, collections.abc.Set),
    )
} | {"None": type(None), "Any": Any, "...": ...}
_NAMES = {kind: name for name, kind in _PLAIN.items()}


def to_data(hint: Hint, table: Table) -> Shape:
    """The hint as data; what has a name goes into the table.

    Raises:
        TypeError: a type that cannot be told, such as one that contains itself.
    """
    return _Teller(table).shape(hint)


def kinds_of(hint: Hint) -> dict[str, Hint]:
    """Every type with a name that the hint consists of, by its key; what cannot be told is left out."""
    teller = _Teller({})
    with suppress(TypeError):
        teller.shape(hint)
    return teller.kinds


class _Teller:
    def __init__(self, table: Table) -> None:
        self.table = table
        self.kinds: dict[str, Hint] = {}
        self.open: list[str] = []

    def shape(self, hint: Hint) -> Shape:
        hint = type(None) if hint is None else hint
        if hints.origin_of(hint) is Annotated:
            return self.shape(get_args(hint)[0])
        if hints.is_union(hint):
            return Generic("union", tuple(map(self.shape, get_args(hint))))
        if hints.origin_of(hint) is Literal:
            return LiteralOf(get_args(hint))
        origin = hints.origin_of(hint)
        if origin in _NAMES:
            return Generic(_NAMES[origin], tuple(map(self.shape, get_args(hint))))
        if origin is None and isinstance(hint, collections.abc.Hashable) and hint in _NAMES:
            return Plain(_NAMES[hint])
        return self.named(hint)

    def named(self, hint: Hint) -> Named:
        key = f"{getattr(hint, '__module__', '')}.{getattr(hint, '__qualname__', hint)}"
        if key in self.open:
            raise TypeError(f"type {hints.describe(hint)} contains itself: write object in its place")
        if key not in self.table:
            self.open.append(key)
            self.table[key] = self.definition(hint)
            self.kinds[key] = hint
            self.open.pop()
        return Named(key)

    def definition(self, hint: Hint) -> Definition:
        if isinstance(hint, NewType):
            return NewTypeOf(hint.__name__, self.shape(hint.__supertype__))
        if isinstance(hint, type) and issubclass(hint, enum.Enum):
            return Enumeration(hint.__name__, {member.name: member.value for member in hint})
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            return self.struct(hint)
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            return self.dataclass(hint)
        if typing.is_typeddict(hint):
            return self.typed_dict(hint)
        raise TypeError(f"type {hints.describe(hint)} cannot be told to another process")

    def struct(self, kind: type[msgspec.Struct]) -> Record:
        told = tuple(
            Field(
                field.name,
                field.encode_name,
                self.shape(field.type),
                _default(field.default, field.default_factory, msgspec.NODEFAULT),
            )
            for field in msgspec.structs.fields(kind)
        )
        config = kind.__struct_config__
        return Record(
            kind.__name__, told, config.array_like, config.forbid_unknown_fields, config.tag, config.tag_field
        )

    def dataclass(self, kind: type) -> Record:
        types = hints.fields(kind) or {}
        return Record(
            kind.__name__,
            tuple(
                Field(
                    field.name,
                    field.name,
                    self.shape(types[field.name]),
                    _default(field.default, field.default_factory, dataclasses.MISSING),
                )
                for field in dataclasses.fields(kind)
                if field.init
            ),
        )

    def typed_dict(self, kind: type) -> Record:
        required = hints.required(kind)
        told = (hints.fields(kind) or {}).items()
        return Record(
            kind.__name__,
            tuple(
                Field(name, name, self.shape(hint), None if name in required else "null")
                for name, hint in told
            ),
        )


def _default(value: object, factory: object, missing: object) -> str | None:
    if value is missing and factory is missing:
        return None
    return msgspec.json.encode(factory() if callable(factory) and value is missing else value).decode()


Known = Callable[[str], Iterable[Hint]]


class Reader:
    """Makes types of data.  `known(name)` offers types; one that has the same structure is used."""

    def __init__(self, table: Mapping[str, Definition], known: Known) -> None:
        self._table = table
        self._known = known
        self._made: dict[str, Hint] = {}

    def hint(self, shape: Shape) -> Hint:
        match shape:
            case Plain(name):
                return _PLAIN[name]
            case LiteralOf(values):
                return Literal.__getitem__(values)
            case Named(key):
                if key not in self._made:
                    self._made[key] = self._same(key) or self._make(self._table[key])
                return self._made[key]
            case Generic("union", of):
                return Union.__getitem__(tuple(map(self.hint, of)))
            case Generic(origin, of):
                return _PLAIN[origin][tuple(map(self.hint, of))]

    def _same(self, key: str) -> Hint | None:
        for offered in self._known(self._table[key].name):
            table: Table = {}
            if _equal(to_data(offered, table), table, Named(key), self._table):
                return offered
        return None

    def _make(self, definition: Definition) -> Hint:
        match definition:
            case NewTypeOf(name, base):
                return NewType(name, self.hint(base))
            case Enumeration(name, members):
                return enum.Enum(name, members)
            case Record(name, fields):
                return msgspec.defstruct(
                    name,
                    [_field(field, self.hint(field.shape)) for field in fields],
                    frozen=True,
                    kw_only=True,
                    rename={field.name: field.written for field in fields},
                    array_like=definition.array,
                    forbid_unknown_fields=definition.strict,
                    tag=definition.tag,
                    tag_field=definition.tag_field,
                )


def _field(field: Field, hint: Hint) -> Any:
    if field.default is None:
        return field.name, hint
    stored = field.default.encode()
    value = _value(stored, hint)
    if isinstance(value, list | dict | set | msgspec.Struct):  # each record has its own
        return field.name, hint, msgspec.field(default_factory=lambda: _value(stored, hint))
    return field.name, hint, value


def _value(stored: bytes, hint: Hint) -> object:
    value = msgspec.json.decode(stored)
    return value if value is None else msgspec.convert(value, hint)


def _equal(
    one: object, first: Mapping[str, Definition], two: object, second: Mapping[str, Definition]
) -> bool:
    """Whether two shapes mean the same, whatever the keys of their tables are."""
    if isinstance(one, Named) and isinstance(two, Named):
        return _equal(first[one.key], first, second[two.key], second)
    if type(one) is not type(two):
        return False
    if isinstance(one, tuple) and isinstance(two, tuple):
        return len(one) == len(two) and all(
            _equal(a, first, b, second) for a, b in zip(one, two, strict=True)
        )
    if isinstance(one, msgspec.Struct):
        names = one.__struct_fields__
        return all(_equal(getattr(one, name), first, getattr(two, name), second) for name in names)
    return one == two
