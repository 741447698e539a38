"""Types told as data are the same on the other side."""

import dataclasses
import enum
from typing import Any, Literal, NewType, TypedDict

import msgspec
import pytest

from skep.flow.bundles.shapes import Definition, Reader, Shape, Table, to_data
from skep.flow.definition import hints
from skep.flow.definition.hints import Hint

Name = NewType("Name", str)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Part(msgspec.Struct, rename="camel"):
    part_name: Name
    tags: list[str] = msgspec.field(default_factory=lambda: ["new"])
    colour: Colour = Colour.RED


@dataclasses.dataclass
class Whole:
    parts: dict[str, Part]
    size: int | None = None


class Entry(TypedDict):
    host: str
    port: int


class Endless(msgspec.Struct):
    inner: "Endless | None"


@pytest.mark.parametrize(
    "hint",
    [
        *(int, None, object, Any, list, list[str], dict[str, int], tuple[int, ...], tuple[int, str]),
        *(Literal["a", 2], str | None, Name | int, Name, Colour, Part, Whole, Entry, list[Part | None]),
    ],
)
def test_a_type_crosses_and_means_the_same(hint: Hint) -> None:
    shape, table = _crossed(hint)

    made = Reader(table, lambda _name: ()).hint(shape)

    assert hints.describe(made) == hints.describe(hint)
    if hint is not object:  # any value: JSON Schema has no word for it
        assert msgspec.json.schema(made) == msgspec.json.schema(hint)


def test_values_written_as_one_are_read_as_the_other() -> None:
    shape, table = _crossed(Whole)
    made = Reader(table, lambda _name: ()).hint(shape)
    content = msgspec.json.encode(Whole({"a": Part(Name("x"), ["t"], Colour.BLUE)}, 3))

    value = msgspec.json.decode(content, type=made)

    assert msgspec.json.encode(value) == content


def test_a_type_of_the_program_with_the_same_structure_is_used() -> None:
    shape, table = _crossed(list[Part])

    made = Reader(table, lambda name: {"Part": [Whole, Part]}.get(name, ())).hint(shape)

    assert made == list[Part]


def test_a_type_of_the_same_name_with_another_structure_is_not() -> None:
    other = msgspec.defstruct("Part", [("part_name", int)])
    shape, table = _crossed(Part)

    made = Reader(table, lambda _name: [other]).hint(shape)

    assert made is not other
    assert hints.fields(made) is not None


def test_a_type_that_contains_itself_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="Endless contains itself"):
        to_data(Endless, {})


def _crossed(hint: Hint) -> tuple[Shape, Table]:
    table: Table = {}
    shape = to_data(hint, table)
    content = msgspec.msgpack.encode((shape, table))
    crossed: tuple[Shape, dict[str, Definition]] = msgspec.msgpack.decode(content, type=tuple[Shape, Table])
    return crossed
