"""What a step is given is its own: whatever it does to its arguments, nobody else sees it.

Results are kept in memory for all steps that refer to them.  Converting to most types makes new values; of
the others a copy is made: a step would else change what its neighbours get, until a restart reads it anew.
"""

import copy
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import inspect

_SCALARS = frozenset({str, int, float, bool, type(None)})
_UNCHANGING = (
    inspect.NoneType,
    inspect.BoolType,
    inspect.IntType,
    inspect.FloatType,
    inspect.StrType,
    inspect.BytesType,
    inspect.EnumType,
    inspect.LiteralType,
    inspect.DateTimeType,
    inspect.DateType,
    inspect.TimeType,
    inspect.TimeDeltaType,
    inspect.UUIDType,
    inspect.DecimalType,
)


def own(value: Any, hint: Any) -> Any:
    """The value as this type, with no part in common with the original that could be changed.

    Raises:
        msgspec.ValidationError: it is of another type.
    """
    if type(value) not in _SCALARS and _shares(hint):
        value = copy.deepcopy(value)
    return msgspec.convert(value, hint)


@lru_cache(maxsize=4096)
def _shares(hint: Any) -> bool:
    """Converting may hand on parts of the original that can be changed."""
    return not _is_made_anew(inspect.type_info(hint))


def _is_made_anew(kind: inspect.Type) -> bool:
    match kind:
        case inspect.ListType() | inspect.SetType() | inspect.FrozenSetType() | inspect.VarTupleType():
            return _is_made_anew(kind.item_type)
        case inspect.DictType():
            return _is_made_anew(kind.key_type) and _is_made_anew(kind.value_type)
        case inspect.UnionType():
            return all(_is_made_anew(member) for member in kind.types)
        case inspect.StructType():  # handed on as it is
            return bool(kind.cls.__struct_config__.frozen) and all(
                isinstance(field.type, _UNCHANGING) for field in kind.fields
            )
    return isinstance(kind, _UNCHANGING)
