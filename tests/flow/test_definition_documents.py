"""Whatever stands in a document: it is a flow, or refused with its faults; and large ones load."""

import json
from contextlib import suppress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.flow import workshop

from skep.flow import Flow, FlowError, Registry
from skep.flow.definition import picture

STEPS = ["w.make", "w.place", "w.gather", "w.launch", "w.flaky", "nobody"]
TEXTS = st.sampled_from(
    [
        "", "x", "$a", "$b.host", "$a.name.x", "$input.name", "$input.names", "$input", "$item", "$index",
        "$$", "$", "a-${b.port}-c", "10%", "3", "5m", "100/s", "signal", "approval", "until", "for",
        "undo", "bulk", "str", "list[str]", "Place | None", "dict[str,", "$a == 'x'", "not $b",
        "$b.port > 3 and $a != None", "$item in $input.names", "2030-01-01T00:00:00Z", "a", "b", "c", "part",
    ]
)  # fmt: skip
PLAIN = st.one_of(TEXTS, st.integers(-2, 200), st.booleans(), st.none(), st.floats(0, 3), st.text(max_size=5))
VALUE = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.sampled_from(["name", "host", "times", "rate"]), TEXTS), inner, max_size=3
        ),
    ),
    max_leaves=5,
)
STEP_KEYS = [
    "with",
    "on",
    "after",
    "when",
    "each",
    "parallel",
    "failures",
    "limit",
    "retry",
    "timeout",
    "priority",
]
STEP = st.one_of(
    PLAIN,
    st.builds(
        lambda kind, rest: {**kind, **rest},
        st.one_of(
            st.fixed_dictionaries(
                {"use": st.sampled_from(STEPS), "with": st.fixed_dictionaries({"name": TEXTS})}
            ),
            st.fixed_dictionaries({"flow": st.sampled_from(["part", "f", "none"]), "with": VALUE}),
            st.fixed_dictionaries({"wait": TEXTS, "with": VALUE, "as": TEXTS}),
        ),
        st.dictionaries(st.sampled_from([*STEP_KEYS, "as", "use", "junk"]), VALUE, max_size=3),
    ),
)
FLOW = st.fixed_dictionaries(
    {
        "flow": st.sampled_from(["f", "", "part", 3]),
        "input": st.one_of(st.just({"name": "str", "names": "list[str]"}), VALUE),
        "steps": st.one_of(st.dictionaries(st.sampled_from("abc"), STEP, max_size=3), VALUE),
    },
    optional=dict.fromkeys(("priority", "timeout", "on_failure", "lock", "limit", "output", "x"), VALUE),
)


TEXT = st.sampled_from(
    ["x", "$input.name", "n-$input.name", "$item", "$index-$item", "$a", "$b.host", "$c-$a"]
)
LIKELY = st.builds(
    lambda kind, text, options: {**kind, "with": dict.fromkeys(kind["with"], text), **options},
    st.sampled_from(
        [
            {"use": "w.make", "with": ["name"]},
            {"use": "w.make", "with": ["name"], "each": "$input.names"},
            {"use": "w.make", "with": ["name"], "each": ["p", "$input.name"], "failures": "50%"},
            {"flow": "part", "with": ["name"]},
            {"flow": "part", "with": ["name"], "each": "$input.names", "parallel": 2},
            {"wait": "approval", "with": ["message"]},
            {"wait": "signal", "with": ["name"], "as": "Place"},
        ]
    ),
    TEXT,
    st.fixed_dictionaries(
        {},
        optional={
            "when": st.sampled_from(
                ["$input.flag", "$input.name == 'x'", "$item > 'q'", "$index < 3", "$b != None"]
            ),
            "after": st.lists(st.sampled_from("abc"), max_size=1),
            "timeout": st.just("5m"),
        },
    ),
)
LIKELY_FLOW = st.fixed_dictionaries(
    {
        "flow": st.just("f"),
        "input": st.just({"name": "str", "names": "list[str]", "flag": "bool"}),
        "steps": st.fixed_dictionaries({}, optional=dict.fromkeys("abcd", LIKELY)),
    },
    optional={
        "output": st.sampled_from([{"x": "$a"}, {"x": ["$b", "$c"]}, {"x": "$b.text", "y": {"z": "$d"}}]),
        "limit": st.just({"k/$input.name": 2}),
    },
)


def registry() -> Registry:
    registry = workshop.registry()
    registry.add_flow(
        "flow: part\ninput: {name: str, host: str | None}\n"
        "steps:\n"
        "  a: {use: w.make, with: {name: $input.name}, when: $input.host != None}\n"
        "  b: {use: w.make, each: [x, y], with: {name: $item-$input.name}}\n"
        'output: {name: $a, both: $b, text: "of $input.name"}\n',
        "part.yaml",
    )
    return registry


def check(text: str) -> None:
    """It is refused with its faults, or stored and loaded as it is."""
    mine = registry()
    with suppress(FlowError):
        flow = mine.parse(text, "f.yaml")
        assert mine.load(flow.content).graph.plan == flow.plan
        assert all(index < place for place, step in enumerate(flow.plan.steps) for index in step.after)
        assert_drawn(flow)


def assert_drawn(flow: Flow) -> None:
    """Every step is to be seen in every picture."""
    pictures = picture.mermaid(flow.plan), picture.svg(flow.plan), picture.describe(flow.plan)

    assert all(step.name in text for step in flow.plan.steps for text in pictures)


@settings(max_examples=300, deadline=None)
@given(FLOW)
def test_a_document_is_a_flow_or_refused_with_its_faults(document: dict[str, Any]) -> None:
    check(json.dumps(document))


@settings(max_examples=300, deadline=None)
@given(LIKELY_FLOW)
def test_a_document_that_is_nearly_right_is_a_flow_or_refused_with_its_faults(
    document: dict[str, Any],
) -> None:
    check(json.dumps(document))


@settings(max_examples=200, deadline=None)
@given(st.one_of(VALUE.map(json.dumps), st.text(alphabet="flow:steps{}[]&*<-$ \n'\"x1", max_size=80)))
def test_what_is_no_flow_at_all_is_refused(text: str) -> None:
    check(text)


def test_a_flow_of_100_000_steps_loads() -> None:
    mine = workshop.registry()
    steps = "".join(f"  s{n}: {{use: w.make, with: {{name: $input.name}}}}\n" for n in range(999))
    mine.add_flow(f"flow: part\ninput: {{name: str}}\nsteps:\n{steps}output: {{x: $s3}}\n", "part.yaml")
    calls = "".join(f"  p{n}: {{flow: part, with: {{name: $p{n - 1}.x}}}}\n" for n in range(1, 100))

    flow = mine.add_flow(f"flow: f\nsteps:\n  p0: {{flow: part, with: {{name: a}}}}\n{calls}", "f.yaml")

    assert len(flow.plan.steps) == 99_900
    assert flow.plan.steps[-1].after == (98 * 999 + 3,)


def test_a_document_of_many_steps_is_read_in_time_that_grows_with_them() -> None:
    steps = "".join(f"  s{n}: {{use: w.make, with: {{name: $s{n - 1}}}}}\n" for n in range(1, 5000))

    flow = workshop.registry().parse(
        f"flow: f\nsteps:\n  s0: {{use: w.make, with: {{name: a}}}}\n{steps}", "f.yaml"
    )

    assert [step.after for step in flow.plan.steps[:3]] == [(), (0,), (1,)]


def test_a_document_of_many_faults_names_the_first_thousand() -> None:
    steps = "".join(f"  s{n}: {{use: w.mak}}\n" for n in range(3000))

    try:
        workshop.registry().parse(f"flow: f\nsteps:\n{steps}", "f.yaml")
    except FlowError as error:
        faults = error.problems

    assert len(faults) == 1000
    assert str(faults[0]) == "f.yaml:3: step s0: there is no step 'w.mak'; did you mean 'w.make'?"
