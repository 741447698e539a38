"""What would become of each run under way: decided from plans and rows, and looked up for real runs."""

import re
from pathlib import Path

import msgspec
import pytest
from tests.flow import workshop
from tests.flow.bundles import samples

from skep.flow import Flow, FlowEngine, Registry, RunId, RunState, StepState
from skep.flow.bundles.bundles import Bundles
from skep.flow.bundles.preflight import judge, migration
from skep.flow.definition.plan import Plan, PlannedStep
from skep.flow.runs import RunRow, StepRow

OLD = """
flow: f
input: {name: str}
steps:
  a: {use: w.make, with: {name: $input.name}}
  b: {use: w.make, with: {name: $a}}
  c: {use: w.make, with: {name: "${b}-c"}}
"""


def flow(text: str) -> Flow:
    registry: Registry = workshop.registry()
    return registry.add_flow(text, "f.yaml")


def run(**changed: object) -> RunRow:
    row = RunRow(RunId("r"), "f", "d", "", "", {}, None, b"{}", (), 3, 0.0, started=1.0)
    for name, value in changed.items():
        setattr(row, name, value)
    return row


def rows(**states: StepState) -> dict[str, StepRow]:
    done = b'"x"'
    return {
        name: StepRow(state, 1, result=done if state is StepState.SUCCEEDED else None)
        for name, state in states.items()
    }


def decide(new: str, **states: StepState) -> Plan | tuple[str, ...]:
    return migration(flow(OLD).plan, run(), rows(**states), flow(new), lambda _step, _result: None)


def test_what_has_not_begun_may_change() -> None:
    new = OLD.replace('"${b}-c"', "other") + "  d: {use: w.make, with: {name: $c}}\n"

    plan = decide(new, a=StepState.SUCCEEDED)

    assert isinstance(plan, Plan)
    assert [step.name for step in plan.steps if step.name == "d"] == ["d"]


def test_how_often_and_how_long_a_step_is_tried_may_change() -> None:
    new = OLD.replace("name: $a}", "name: $a}, retry: 5, timeout: 3s")

    assert isinstance(decide(new, a=StepState.SUCCEEDED, b=StepState.RUNNING), Plan)


@pytest.mark.parametrize(
    ("new", "states", "reason"),
    [
        (
            OLD.replace("a: {use: w.make", "a: {use: w.flaky"),
            {"a": StepState.SUCCEEDED},
            "step a .* another way",
        ),
        (OLD.replace("$input.name", "other"), {"a": StepState.RUNNING}, "step a .* another way"),
        (OLD.replace("name: $a", "name: q"), {"a": StepState.SUCCEEDED}, "step b has begun"),  # implied
        (OLD.replace("  a:", "  z:").replace("$a", "$z"), {"a": StepState.SUCCEEDED}, "none of that name"),
        (
            OLD.replace("name: $a}", "name: $a}, after: [new]") + "  new: {use: w.make, with: {name: n}}\n",
            {"a": StepState.SUCCEEDED, "b": StepState.SUCCEEDED},
            "step b .* waits for new",
        ),
        (OLD + "lock: [x]\n", {}, "other locks"),
    ],
)
def test_what_has_begun_may_not(new: str, states: dict[str, StepState], reason: str) -> None:
    found = decide(new, **states)

    assert isinstance(found, tuple)
    assert re.search(reason, "\n".join(found))


def test_a_run_that_is_undone_stays() -> None:
    found = migration(flow(OLD).plan, run(cause="failed"), {}, flow(OLD), lambda _step, _result: None)

    assert found == ("it is being undone",)


def test_a_result_that_the_new_code_cannot_read_is_an_obstacle() -> None:
    def misfit(step: PlannedStep, result: bytes) -> str | None:
        return "no" if (step.name, result) == ("a", b'"x"') else None

    found = migration(flow(OLD).plan, run(), rows(a=StepState.SUCCEEDED), flow(OLD), misfit)

    assert found == ("the result of step a does not fit the new code: no",)


def test_results_of_the_items_of_a_fan_out_are_looked_at_too() -> None:
    steps = "{r: {use: w.make, each: $input.names, with: {name: $item}}}"
    text = f"flow: f\ninput: {{names: 'list[str]'}}\nsteps: {steps}"
    begun = {"r": StepRow(StepState.RUNNING, 1), "r[0]": StepRow(StepState.SUCCEEDED, 1, result=b"1")}

    def misfit(step: PlannedStep, _result: bytes) -> str | None:
        return f"not by {step.use}"

    found = migration(flow(text).plan, run(), begun, flow(text), misfit)

    assert found == ("the result of step r[0] does not fit the new code: not by w.make",)


def test_the_verdict_names_what_is_possible() -> None:
    verdicts = [
        judge(run(), ["h"], "", ()).verdict,
        judge(run(), ["h"], "", ("x",)).verdict,
        judge(run(), ["h"], "lost", ("x",)).verdict,
    ]

    assert verdicts == ["can be migrated", "finishes on old", "blocked"]


async def test_preflight_tells_of_every_run_under_way(
    bundles: Bundles, flows: FlowEngine, tmp_path: Path
) -> None:
    first = await bundles.push(samples.greeting(tmp_path / "1", "1"))
    await bundles.activate(first.hash)
    at_gate = await flows.start("greet", {"name": "Ann"})
    ended = await flows.start("hello", {"name": "Bob"})
    await flows.wait(ended, 20)
    async for event in flows.follow(at_gate):
        if (event.kind, event.step) == ("succeeded", "found"):
            break
    same = await bundles.push(samples.greeting(tmp_path / "2", "2"))
    changed = samples.GREET.replace("$input.name", "someone")
    other = await bundles.push(samples.greeting(tmp_path / "3", "3", **{"greet.yaml": changed}))

    verdicts = [(await bundles.preflight(info.hash)).fates for info in (same, other)]

    assert [[(fate.run, fate.verdict) for fate in fates] for fates in verdicts] == [
        [(at_gate, "can be migrated")],
        [(at_gate, "finishes on old")],
    ]
    assert "step found has begun, and the new version calls it in another way" in verdicts[1][0].reasons
    assert msgspec.json.encode(verdicts[0])
    await flows.signal(at_gate, "go")
    assert (await flows.wait(at_gate, 20)).state is RunState.SUCCEEDED


async def test_a_run_that_can_be_moved_goes_on_with_the_new_version(
    bundles: Bundles, flows: FlowEngine, tmp_path: Path
) -> None:
    first = await bundles.push(samples.greeting(tmp_path / "1", "1"))
    await bundles.activate(first.hash)
    moved = await flows.start("greet", {"name": "Ann"})
    async for event in flows.follow(moved):
        if (event.kind, event.step) == ("succeeded", "found"):
            break
    longer = samples.GREET.replace("output:", "  more: {use: steps.find, with: {name: $said}}\noutput:")
    text = longer.replace("{said: $said}", "{said: $said, more: $more.name}")
    second = await bundles.push(samples.greeting(tmp_path / "2", "2", **{"greet.yaml": text}))

    found = await bundles.activate(second.hash, by="ann", migrate=flows)
    await flows.signal(moved, "go")
    record = await flows.wait(moved, 20)

    assert [(fate.run, fate.verdict) for fate in found.fates] == [(moved, "can be migrated")]
    assert record.output == {"said": "hello 1, Ann (hello 2)", "more": "hello 1, Ann (hello 2)"}
    assert {info.version for info in await bundles.gc(keep=1)} == {"1"}
