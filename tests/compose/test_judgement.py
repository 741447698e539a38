"""The quick judgement of a Compose file is that of jsonschema."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from skep.compose.judgement import allows
from skep.compose.merge import TAGS
from skep.compose.shape import _validator
from skep.documents import load_tree

SAMPLES = [
    load_tree(path.read_text(), path.name, tags=TAGS).plain()
    for path in sorted(Path(__file__).parent.glob("samples/*/*.yaml"))
]
ODD_VALUES: list[Any] = [
    *(None, True, "true", "false", 0, 1, -1, 1.0, 1.5, 2_000, 10**25, float("inf"), float("nan")),
    *("", "web", "x\n", "8080:80", "\udcff", "all", "10s", "1g"),
    *([], ["a"], ["a", "a"], [1, 1.0, True], [{"a": 1, "b": 2}, {"b": 2, "a": 1}], [None]),
    *({}, {"x-own": 1}, {"a b": {}}, {"type": "bind"}, {"soft": 1, "hard": 2}, {"path": "x"}),
    {"services": {"web": {"image": "x", "nonsense": 1}}},
]


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


def test_files_that_are_as_they_should_be_are_allowed_at_once() -> None:
    right = [one for one in SAMPLES if _validator().is_valid(one)]

    assert len(right) >= 10
    assert all(map(allows, right))
    assert allows({"services": {"web": {"image": "x", "read_only": "true"}}})


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_what_is_allowed_at_once_is_allowed_by_jsonschema(data: st.DataObject) -> None:
    sample = data.draw(st.sampled_from(SAMPLES), label="file")
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.sampled_from(list(places(sample))), label="place")
        sample = put(sample, place, data.draw(st.sampled_from(ODD_VALUES), label="value"))

    assert _validator().is_valid(sample) or not allows(sample)
