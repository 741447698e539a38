"""Conditions: what `when:` may say, what it means, and what is known once it holds."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.flow import workshop

from skep.flow.definition.conditions import condition
from skep.flow.definition.expressions import Reference, evaluate, references
from skep.flow.definition.writing import written

VALUES: dict[str, Any] = {
    "a": 3,
    "b": 7,
    "c": "x",
    "d": "xy",
    "e": None,
    "f": True,
    "g": False,
    "h": [3, "x"],
}


def look(reference: Reference) -> object:
    assert reference.source == "input"
    return VALUES[reference.path[0]]


def values() -> st.SearchStrategy[str]:
    written = st.one_of(
        st.integers(-5, 9).map(str), st.sampled_from(["'x'", '"xy"', "None", "True", "False", "2.5"])
    )
    return st.one_of(written, st.sampled_from(sorted(VALUES)).map("$input.{}".format))


def comparisons() -> st.SearchStrategy[str]:
    same = st.tuples(values(), st.sampled_from(["==", "!="]), values()).map(" ".join)
    numbers = st.sampled_from(["1", "3", "4.5", "$input.a", "$input.b", "${input.a}"])
    order = st.sampled_from(["<", "<=", ">", ">="])
    ordered = st.tuples(numbers, order, numbers, order, numbers).map(" ".join)
    lists = st.one_of(
        st.just("$input.h"), st.lists(values(), max_size=3).map(lambda items: f"[{', '.join(items)}]")
    )
    within = st.tuples(values(), st.sampled_from(["in", "not in"]), lists).map(" ".join)
    return st.one_of(same, ordered, within, st.sampled_from(["$input.f", "$input.g", "true", "False"]))


CONDITIONS = st.recursive(
    comparisons(),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(" ".join),
        inner.map("not ({})".format),
        inner.map("({})".format),
    ),
    max_leaves=8,
)


@given(CONDITIONS)
def test_a_condition_means_what_python_means_by_it(text: str) -> None:
    python = text.replace("${input.a}", "a").replace("$input.", "").replace("true", "True")

    assert evaluate(condition(text), look) is bool(eval(python, {}, dict(VALUES)))


def test_what_is_decided_already_is_not_looked_up() -> None:
    seen: list[str] = []

    def look(reference: Reference) -> object:
        seen.append(reference.source)
        return None

    assert evaluate(condition("$a != None and $b.size > 3 and $c"), look) is False
    assert seen == ["a"]


def test_a_text_in_a_condition_may_hold_references() -> None:
    found = condition("$place.host == 'agent-$input.c' and $place.name != '$$5'")

    assert [str(reference) for reference in references(found)] == [
        "$place.host",
        "$input.c",
        "$place.name",
    ]


def test_a_step_whose_name_begins_with_a_digit_is_referred_to_in_braces() -> None:
    found = condition("${0-0-at-5-percent.share} > 3")

    assert [str(reference) for reference in references(found)] == ["${0-0-at-5-percent.share}"]
    assert condition(written(found)) == found


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("$a.", "invalid syntax"),
        ("", "invalid syntax"),
        ("$a is None", "write == and !="),
        ("$a + 1 == 2", r"'\$a \+ 1' cannot stand there"),
        ("$a()", r"'\$a\(\)' cannot stand there"),
        ("__import__('os')", "cannot stand there"),
        ("$a if $b else $c", "cannot stand there"),
        ("[x for x in $a]", "cannot stand there"),
        ("lambda: 1", "cannot stand there"),
        ("(y := $a)", "cannot stand there"),
        ("_0 == $a", "'_0' is no value"),
        ("size > 3", "write 'size' for a text, \\$size for a reference"),
        (r"$a == '\d'", "invalid escape sequence"),
        ("$a == '\0'", "null"),
        ("not " * 100 + "$a", "nested deeper"),
        ("(" * 1000 + "$a" + ")" * 1000, "parentheses"),
        ("$a and " * 1000 + "$a", "longer than 4000 characters"),
        ("$a $b", "invalid syntax"),
        ("$a > 1e999", "inf cannot be stored"),
        (r"$a == 'x\ud800'", "cannot be stored"),
        (r"$a == '\ud800-$b'", "cannot be stored"),
        ("$$a == 1", "invalid syntax"),
    ],
)
def test_what_is_no_condition_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        condition(text)


@given(st.text(alphabet="$ab.{}()[]'\"\\=<> \n#,:-1andortisN", max_size=60))
def test_whatever_is_written_is_a_condition_or_refused(text: str) -> None:
    try:
        found = [*references(condition(text))]
    except ValueError:
        return
    assert len(found) <= text.count("$")


INPUT = "input: {name: str | None, place: Place | None, names: 'list[str] | None', mode: str | None}"


@pytest.mark.parametrize(
    ("when", "use"),
    [
        ("$input.name != None", "use: w.make, with: {name: $input.name}"),
        ("None != $input.name and $input.mode == 'x'", "use: w.make, with: {name: $input.mode-$input.name}"),
        ("not ($input.name == None or $input.mode == None)", "use: w.make, with: {name: $input.name}"),
        ("$input.mode in ['dry', 'wet']", "use: w.make, with: {name: $input.mode}"),
        ("$input.place != None and $input.place.port > 3", "use: w.make, with: {name: $input.place.host}"),
        ("$input.place == None or $input.place.port > 3", "use: w.make, with: {name: x}"),
        ("$input.names != None", "use: w.make, each: $input.names, with: {name: $item}"),
        ("$input.name != None", "flow: part, with: {name: $input.name}"),
        ("$input.name != None", "wait: approval, with: {message: 'for $input.name?'}"),
    ],
)
def test_a_condition_tells_the_rest_of_its_step_what_is_not_none(when: str, use: str) -> None:
    registry = workshop.registry()
    registry.add_flow(
        "flow: part\ninput: {name: str}\nsteps: {a: {use: w.make, with: {name: $input.name}}}", "p"
    )

    flow = registry.parse(f'flow: f\n{INPUT}\nsteps:\n  a: {{{use}, when: "{when}"}}\n', "f.yaml")

    assert all(step.when is not None for step in flow.plan.steps)
