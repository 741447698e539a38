"""Whether what is written gives what is wanted, in one place of a flow."""

from collections.abc import Mapping

import msgspec

from skep.documents import Path
from skep.flow.definition import comparisons, hints
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
from skep.flow.definition.hints import Hint, describe
from skep.flow.definition.sources import UNKNOWN, Sources


def check(value: Expression, wanted: Hint, sources: Sources, path: Path, what: str) -> None:
    """Note whatever is wrong with it; looks into written lists and mappings."""
    match value:
        case Constant(constant):
            _check_constant(constant, wanted, sources, path, what)
        case Reference():
            given = sources.type_of(value, path)
            if given is not UNKNOWN and not hints.fits(given, wanted):
                sources.wrong(path, f"{what} wants {describe(wanted)}, but {value} is {describe(given)}")
        case Text():
            _check_text(value, sources, path)
            if not any(hints.fits(str, hints.bare(member)) for member in hints.members(wanted)):
                sources.wrong(path, f"{what} wants {describe(wanted)}, but a text with references is str")
        case Items(items):
            _check_items(items, wanted, sources, path, what)
        case Fields(fields):
            _check_fields(fields, wanted, sources, path, what)
        case Operation() | Guarded():
            raise TypeError("conditions are checked by 'truth'")


def type_of(value: Expression, sources: Sources, path: Path) -> Hint:
    """The type of what may be anything: an output, a list to fan out over."""
    match value:
        case Constant(constant):
            return comparisons.constant(constant)
        case Reference():
            return sources.type_of(value, path)
        case Text():
            _check_text(value, sources, path)
            return str
        case Items(items):
            found = [type_of(item, sources, (*path, index)) for index, item in enumerate(items)]
            return list[comparisons.one_of(_known(hint) for hint in found)]  # type: ignore[misc]
        case Fields(fields):
            named = {name: type_of(item, sources, (*path, name)) for name, item in fields.items()}
            return comparisons.mapping({name: _known(hint) for name, hint in named.items()})
        case Operation() | Guarded():
            return bool


def _known(hint: Hint) -> Hint:
    return object if hint is UNKNOWN else hint


def _check_constant(constant: object, wanted: Hint, sources: Sources, path: Path, what: str) -> None:
    try:
        msgspec.convert(constant, wanted)
    except msgspec.ValidationError as error:
        sources.wrong(path, f"{what} wants {describe(wanted)}, not {_short(constant)}: {error}")


def _short(constant: object) -> str:
    text = repr(constant)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _check_text(text: Text, sources: Sources, path: Path) -> None:
    for part in text.parts:
        if isinstance(part, Reference):
            hint = sources.type_of(part, path)
            if hint is not UNKNOWN and not hints.is_embeddable(hint):
                reason = f"only str and int can stand inside a text, but {part} is {describe(hint)}"
                sources.wrong(path, reason)


def _check_items(
    items: tuple[Expression, ...], wanted: Hint, sources: Sources, path: Path, what: str
) -> None:
    element = hints.element(wanted)
    if element is None:
        sources.wrong(path, f"{what} wants {describe(wanted)}, not a list")
        return
    for index, item in enumerate(items):
        check(item, element, sources, (*path, index), f"item {index} of {what}")


def _check_fields(
    fields: Mapping[str, Expression], wanted: Hint, sources: Sources, path: Path, what: str
) -> None:
    shape = hints.shape(wanted)
    if shape is None:
        sources.wrong(path, f"{what} wants {describe(wanted)}, not a mapping")
        return
    for name, value in fields.items():
        if (hint := shape(name)) is None:
            sources.wrong((*path, name), f"{describe(wanted)} has no field {name!r}")
        else:
            check(value, hint, sources, (*path, name), f"field {name!r} of {what}")
    for member in hints.members(wanted):
        for name in sorted(hints.required(member) - fields.keys()):
            sources.wrong(path, f"field {name!r} of {describe(wanted)} is missing")
