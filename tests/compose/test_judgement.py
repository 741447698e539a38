"""The quick judgement of a Compose file is that of jsonschema."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from skep.compose.judgement import KEYWORDS, Judge
from skep.compose.merge import TAGS
from skep.compose.shape import _validator, published_schema
from skep.documents import load_tree

SAMPLES = [
    load_tree(path.read_text(), path.name, tags=TAGS).plain()
    for path in sorted(Path(__file__).parent.glob("samples/*/*.yaml"))
]
SAYS_NOTHING = {"$schema", "$id", "title", "description", "default", "deprecated", "definitions"}
ODD_VALUES: list[Any] = [
    *(None, True, "true", "false", 0, 1, -1, 1.0, 1.5, 2_000, 10**25, float("inf"), float("nan")),
    *("", "web", "x\n", "8080:80", "all", "10s", "1g"),
    *([], ["a"], ["a", "a"], [1, 1.0, True], [{"a": 1, "b": 2}, {"b": 2, "a": 1}], [None]),
    *({}, {"x-own": 1}, {"a b": {}}, {"type": "bind"}, {"soft": 1, "hard": 2}, {"path": "x"}),
    {"services": {"web": {"image": "x", "nonsense": 1}}},
]


def schemas(schema: Any) -> Iterator[dict[str, Any]]:
    """A schema and all within it."""
    yield schema
    below = [schema[key] for key in ("items", "additionalProperties") if isinstance(schema.get(key), dict)]
    below += schema.get("oneOf", [])
    for key in ("properties", "patternProperties", "definitions"):
        below += schema.get(key, {}).values()
    for one in below:
        yield from schemas(one)


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    entries = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in entries:
        yield from places(value, (*path, key))


def put(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    changed = deepcopy(data)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return changed


def test_every_word_of_the_published_schema_is_known() -> None:
    found = list(schemas(published_schema()))

    assert {word for schema in found for word in schema} <= KEYWORDS | SAYS_NOTHING
    assert {type(value) for schema in found for value in schema.get("enum", [])} == {str}
    assert all(isinstance(schema.get("items", {}), dict) for schema in found)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_one_says_of_any_file_what_the_other_says(data: st.DataObject) -> None:
    sample = data.draw(st.sampled_from(SAMPLES), label="file")
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.sampled_from(list(places(sample))), label="place")
        sample = put(sample, place, data.draw(st.sampled_from(ODD_VALUES), label="value"))

    assert Judge(published_schema()).allows(sample) is _validator().is_valid(sample)
