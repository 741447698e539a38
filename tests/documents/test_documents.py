"""YAML in, plain data and lines out, whatever the text."""

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.documents import DocumentError, Limits, Node, load, load_tree, resolve


def read(text: str) -> object:
    return load(text, "f.yaml").data


def problem(text: str) -> DocumentError:
    with pytest.raises(DocumentError) as caught:
        load(text, "f.yaml")
    return caught.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("off", "off"),
        ("22:22", "22:22"),
        ("2024-01-01", "2024-01-01"),
        ("true", True),
        ("False", False),
        ("", None),
        ("~", None),
        ("0o17", 15),
        ("0440", 0o440),
        ("-0x1F", -31),
        ("1_000", 1000),
        ("_1", "_1"),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".inf", float("inf")),
        ("-.INF", float("-inf")),
        ("1.2.3", "1.2.3"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_plain_scalars_mean_what_compose_takes_them_for(text: str, value: object) -> None:
    assert read(f"key: {text}") == {"key": value}


def test_quoted_scalars_are_always_text() -> None:
    assert read("[\"1\", 'true', '']") == ["1", "true", ""]


def test_standard_tags_are_honoured() -> None:
    assert read("[!!str 1, !!float 2, !!int '3']") == ["1", 2.0, 3]


def test_keys_stay_as_they_are_written() -> None:
    assert read("on: 1\n80: 2\ntrue: 3") == {"on": 1, "80": 2, "true": 3}


def test_merge_keys_give_way_to_own_keys_and_to_earlier_mappings() -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {x: 2, z: 2}\nc: {<<: [*a, *b], y: 3}"

    assert load(text, "f").data["c"] == {"x": 1, "y": 3, "z": 2}


def test_positions_name_the_line_of_the_key() -> None:
    document = load("services:\n  web:\n    ports:\n      - 80\n      - 81\n", "compose.yaml")

    assert str(document.where(("services", "web"))) == "compose.yaml:2"
    assert str(document.where(("services", "web", "ports", 1))) == "compose.yaml:5"
    assert str(document.where(("services", "web", "nothing", "here"))) == "compose.yaml:2"


def test_an_empty_document_is_nothing() -> None:
    assert read("") is None
    assert read("# only a comment\n") is None


def test_allowed_tags_stay_on_the_nodes() -> None:
    tree = load_tree("a: !reset null\nb: !reset {c: 1}", "f", tags=frozenset({"!reset"}))

    assert isinstance(tree.value, dict)
    assert [node.tag for node in tree.value.values()] == ["!reset", "!reset"]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\na: 2", 2, "given twice"),
        ("a: &a\n  - *a", 2, "contains itself"),
        ("a: 1\nb: *nowhere", 2, "undefined alias"),
        ("a: 1\nb: !!python/object/apply:os.system [id]", 2, "!!python/object/apply:os.system"),
        ("a: !!binary aGk=", 1, "!!binary"),
        ("a: !!int many", 1, "!!int"),
        ("a: 1\n---\nb: 2", 2, "more than one document"),
        ("? [a]\n: 1", 1, "plain text"),
        ("a: 1\nb: \x00", 2, "U+0000"),
        ("a: b: c", 1, "mapping values"),
        ("a: 1\n<<: 5", 2, "mapping"),
        ("a: [1, 2", 2, "expected"),
        ("[" * 5000, 1, "deeper"),
        ("- " * 5000, 1, "deeper"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(text: str, line: int, words: str) -> None:
    error = problem(text)

    assert error.position.line == line
    assert words in error.reason


def test_an_alias_bomb_is_refused_at_once() -> None:
    levels = [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    started = time.monotonic()

    error = problem("\n".join(["a0: &a0 [x]", *levels]))

    assert "aliases" in error.reason
    assert time.monotonic() - started < 1


def test_depth_hidden_in_aliases_counts() -> None:
    levels = [f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 100)]

    assert "deeper" in problem("\n".join(["a0: &a0 [x]", *levels])).reason


def test_the_limits_can_be_chosen() -> None:
    with pytest.raises(DocumentError, match="larger than 10 bytes"):
        load("a: 1234567890", "f", Limits(bytes=10))


def test_nodes_give_their_plain_value() -> None:
    assert load_tree("a: [1, {b: null}]", "f").plain() == {"a": [1, {"b": None}]}


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(DocumentError):
        assert isinstance(load_tree(text, "f"), Node)


@given(st.text(alphabet="-:?[]{}&*!|>%@`'\"#,. \n\tab01<~_", max_size=60))
def test_any_yaml_like_text_is_read_or_refused(text: str) -> None:
    with suppress(DocumentError):
        load(text, "f")


@given(st.text(alphabet="0123456789_-+.eExob:", max_size=80))
def test_resolving_a_scalar_never_fails(text: str) -> None:
    resolve(text)
