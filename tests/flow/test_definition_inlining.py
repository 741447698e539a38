"""Sub-flows and fan-outs in plans: what stands where, under which name, and waits for what."""

import pytest
from tests.flow import workshop

from skep.flow import Flow, FlowError, Registry
from skep.flow.definition.expressions import (
    Constant,
    Expression,
    Fields,
    Guarded,
    Operation,
    Reference,
    Text,
    evaluate,
)
from skep.flow.definition.graph import Graph
from skep.flow.definition.hints import describe
from skep.flow.definition.plan import Limit, PlannedStep, Wait

PART = """
flow: part
input: {name: str, size: int | None}
lock: ["part/$input.name"]
limit: {parts: 2}
steps:
  make: {use: w.make, with: {name: $input.name}, limit: {"make/$input.name": 3}}
  more: {use: w.make, with: {name: $make}, when: $input.size != None and $input.size > 3}
  ok: {wait: approval, with: {message: "Go on with $input.name?"}, after: [make]}
output: {name: $make, more: $more, text: "made $make", by: $ok.by}
"""


def wired(*documents: str) -> Flow:
    registry = workshop.registry()
    for document in documents[:-1]:
        registry.add_flow(document, "part.yaml")
    return registry.parse(documents[-1], "whole.yaml")


def steps_of(flow: Flow) -> dict[str, PlannedStep]:
    return {step.name: step for step in flow.plan.steps}


def before(flow: Flow, name: str) -> set[str]:
    return {flow.plan.steps[index].name for index in steps_of(flow)[name].after}


def test_the_condition_of_a_sub_flow_holds_for_each_of_its_steps() -> None:
    flow = wired(
        PART,
        """
flow: whole
input: {name: str, really: bool}
steps:
  place: {use: w.place, with: {name: x}}
  sub: {flow: part, with: {name: $input.name, size: 5}, when: $input.really and $place.port == 80}
  next: {use: w.make, with: {name: n}, after: [sub]}
output: {name: $sub.name, text: $sub.text, by: $sub.by}
""",
    )
    steps = steps_of(flow)
    port = Operation("==", (Reference("place", ("port",)), Constant(80)))
    outer = (Reference("input", ("really",)), port)

    assert steps["sub.make"].when == Operation("and", outer)
    more = steps["sub.more"].when
    assert isinstance(more, Operation)
    assert more.operands[:2] == outer
    assert more.operands[3] == Operation(">", (Constant(5), Constant(3)))
    assert steps["sub.ok"].wait == Wait("approval", Text(("Go on with ", Reference("input", ("name",)), "?")))
    assert before(flow, "sub.make") == {"place"}
    assert before(flow, "next") == {"sub.more", "sub.ok"}
    assert {name: describe(hint) for name, hint in flow.outputs.items()} == {
        "name": "str | None",
        "text": "str | None",
        "by": "str | None",
    }


@pytest.mark.parametrize(("really", "value"), [(True, "made x"), (False, None)])
def test_the_output_of_a_sub_flow_that_was_skipped_is_null(really: bool, value: str | None) -> None:
    flow = wired(
        PART,
        """
flow: whole
input: {really: bool}
steps:
  sub: {flow: part, with: {name: x}, when: $input.really}
output: {text: $sub.text, whole: $sub.name, by: $sub.by}
""",
    )
    results = {"sub.make": "x" if really else None, "sub.ok": {"by": "kim"} if really else None}

    def look(reference: Reference) -> object:
        found = really if reference.source == "input" else results[reference.source]
        return found["by"] if reference.path == ("by",) and isinstance(found, dict) else found

    output = {name: evaluate(item, look) for name, item in flow.plan.output.items()}

    assert output == {"text": value, "whole": "x" if really else None, "by": "kim" if really else None}


def test_a_value_that_is_guarded_may_stand_in_a_text_once_it_is_known_to_be_there() -> None:
    flow = wired(
        PART,
        """
flow: whole
input: {really: bool}
steps:
  sub: {flow: part, with: {name: x}, when: $input.really}
  last: {use: w.make, with: {name: "by $sub.by"}, when: $sub.by != None}
""",
    )

    last = steps_of(flow)["last"]

    assert last.arguments["name"] == Text(("by ", Reference("sub.ok", ("by",))))
    assert last.when == Operation(
        "!=", (Guarded(Reference("input", ("really",)), Reference("sub.ok", ("by",))), Constant(None))
    )


def test_locks_and_limits_of_a_sub_flow_are_the_runs() -> None:
    flow = wired(
        PART,
        "flow: whole\nlimit: {all: 1}\nsteps: {sub: {flow: part, with: {name: x}}}\n",
    )

    assert flow.plan.locks == (Constant("part/x"),)
    assert flow.plan.limits == (Limit(Constant("all"), 1), Limit(Constant("parts"), 2))
    assert steps_of(flow)["sub.make"].limits == (Limit(Constant("make/x"), 3),)


def test_what_the_run_needs_before_its_first_step_cannot_come_from_an_item() -> None:
    with pytest.raises(FlowError, match="a lock of sub-flow part would depend on a step or an item"):
        wired(
            PART,
            'flow: w\ninput: {names: "list[str]"}\n'
            "steps: {sub: {flow: part, each: $input.names, with: {name: $item}}}\n",
        )


def test_a_fan_out_waits_for_all_that_its_body_refers_to() -> None:
    flow = wired(
        "flow: inner\ninput: {name: str, host: str}\n"
        "steps:\n"
        "  make: {use: w.make, with: {name: $input.name}, on: $input.host}\n"
        "  more: {use: w.make, with: {name: $make}}\n"
        "output: {name: $more, host: $input.host}\n",
        'flow: outer\ninput: {names: "list[str]"}\n'
        "steps:\n"
        "  a: {use: w.place, with: {name: a}}\n"
        "  b: {use: w.make, with: {name: b}}\n"
        "  c: {use: w.make, with: {name: c}}\n"
        "  each: {flow: inner, each: $input.names, with: {name: '$b-$item', host: $a.host}, after: [c]}\n"
        "output: {all: $each}\n",
    )
    each = steps_of(flow)["each"].each

    assert before(flow, "each") == {"a", "b", "c"}
    assert each is not None
    assert [(step.name, step.after) for step in each.steps] == [("each.make", ()), ("each.more", (0,))]
    assert each.steps[0].arguments["name"] == Text((Reference("b"), "-", Reference("item")))
    assert each.result == Fields({"name": Reference("each.more"), "host": Reference("a", ("host",))})
    assert describe(flow.outputs["all"]) == "list[dict[str, str]]"
    assert Graph(flow.plan).used == {"a", "b", "each", "each.make", "each.more", "item", "input"}


def test_a_condition_on_the_item_decides_for_each_of_them() -> None:
    flow = wired(
        'flow: f\ninput: {names: "list[str]", go: bool}\n'
        "steps:\n"
        "  some: {use: w.make, each: $input.names, with: {name: $item}, when: $item != 'x' and $input.go}\n"
        "  all: {use: w.make, each: $input.names, with: {name: $item}, when: $input.go}\n"
        "output: {some: $some, all: $all}\n"
    )
    some, every = steps_of(flow)["some"], steps_of(flow)["all"]

    assert some.when is None
    assert some.each is not None
    assert isinstance(some.each.steps[0].when, Operation)
    assert every.when == Reference("input", ("go",))
    assert every.each is not None
    assert every.each.steps[0].when is None
    assert describe(flow.outputs["some"]) == "list[str | None]"
    assert describe(flow.outputs["all"]) == "list[str] | None"


def test_an_item_further_out_keeps_its_meaning_within_a_fan_out() -> None:
    flow = wired(
        'flow: row\ninput: {cells: "list[str]", row: int}\n'
        'steps: {cell: {use: w.make, each: $input.cells, with: {name: "${input.row}.$index"}}}\n',
        'flow: sheet\ninput: {rows: "list[list[str]]"}\n'
        "steps: {row: {flow: row, each: $input.rows, with: {cells: $item, row: $index}}}\n",
        'flow: book\ninput: {sheets: "list[list[list[str]]]"}\n'
        "steps: {sheet: {flow: sheet, each: $input.sheets, with: {rows: $item}}}\n",
    )
    sheet = steps_of(flow)["sheet"].each
    assert sheet is not None
    row = sheet.steps[0].each
    assert row is not None
    cell = row.steps[0].each
    assert cell is not None

    assert (sheet.items, row.items, cell.items) == (
        Reference("input", ("sheets",)),
        Reference("item"),
        Reference("item"),
    )
    assert cell.steps[0].name == "sheet.row.cell"
    assert cell.steps[0].arguments["name"] == Text((Reference("index", up=1), ".", Reference("index")))


def test_values_that_double_themselves_are_refused_before_they_are_made() -> None:
    registry = workshop.registry()
    registry.add_flow('flow: d\ninput: {x: str}\noutput: {x: "$input.x$input.x"}\n', "d.yaml")
    chain = "".join(f"  s{n}: {{flow: d, with: {{x: $s{n - 1}.x}}}}\n" for n in range(1, 60))
    text = f"flow: f\ninput: {{x: str}}\nsteps:\n  s0: {{flow: d, with: {{x: $input.x}}}}\n{chain}"

    with pytest.raises(FlowError, match="more than 128 MiB"):
        registry.parse(text, "f.yaml")


def test_values_that_nest_themselves_are_refused() -> None:
    registry = workshop.registry()
    registry.add_flow("flow: d\ninput: {x: object}\noutput: {x: {y: $input.x}}\n", "d.yaml")
    chain = "".join(f"  s{n}: {{flow: d, with: {{x: $s{n - 1}.x}}}}\n" for n in range(1, 200))
    text = f"flow: f\ninput: {{x: object}}\nsteps:\n  s0: {{flow: d, with: {{x: $input.x}}}}\n{chain}"

    with pytest.raises(FlowError, match="nested deeper than 64"):
        registry.parse(text, "f.yaml")


@pytest.mark.parametrize("upwards", [True, False])
def test_flows_within_flows_have_an_end(upwards: bool) -> None:
    registry = workshop.registry()
    texts = {"f0.yaml": "flow: f0\nsteps: {a: {use: w.make, with: {name: a}}}\n"}
    texts |= {f"f{n}.yaml": f"flow: f{n}\nsteps: {{a: {{flow: f{n - 1}}}}}\n" for n in range(1, 300)}

    with pytest.raises(FlowError, match="sub-flows are nested deeper than 50 levels"):
        registry.add_documents(texts if upwards else dict(reversed(texts.items())))


def test_items_of_fan_outs_count_as_steps_of_the_flow() -> None:
    registry: Registry = workshop.registry()
    inner = "".join(f"  s{n}: {{use: w.make, with: {{name: x}}}}\n" for n in range(300))
    registry.add_flow(f"flow: inner\nsteps:\n{inner}", "inner.yaml")
    each = "".join(f"  s{n}: {{flow: inner, each: [1, 2]}}\n" for n in range(400))

    with pytest.raises(FlowError, match="more than 100000 steps"):
        registry.parse(f"flow: outer\nsteps:\n{each}", "outer.yaml")


def test_a_guard_is_left_out_where_the_result_is_null_anyway() -> None:
    flow = wired(
        PART,
        "flow: w\ninput: {go: bool}\nsteps: {sub: {flow: part, with: {name: x}, when: $input.go}}\n"
        "output: {name: $sub.name, by: $sub.by}\n",
    )
    by: Expression = Reference("sub.ok", ("by",))

    assert flow.plan.output == {"name": Reference("sub.make"), "by": Guarded(Reference("input", ("go",)), by)}
