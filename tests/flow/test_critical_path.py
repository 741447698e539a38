"""Where the time of a run went."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from tests.flow.workshop import Workshop

from skep.flow import FlowEngine, StepRecord, StepState
from skep.flow.monitoring.critical_path import CriticalPath, Timing, critical_path, timings

START = datetime(2026, 11, 23, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def record(
    name: str, started: float | None = None, finished: float | None = None, after: tuple[str, ...] = ()
) -> StepRecord:
    return StepRecord(
        name=name,
        use="w.make",
        state=StepState.SUCCEEDED if finished is not None else StepState.RUNNING,
        after=after,
        attempts=1,
        started=None if started is None else at(started),
        finished=None if finished is None else at(finished),
        message="",
    )


def path_of(steps: list[StepRecord], finished: float) -> CriticalPath:
    return critical_path(steps, START, at(finished))


def names(path: CriticalPath) -> list[str]:
    return [timing.step for timing in path.steps]


def test_the_chain_leads_back_from_the_last_step_through_those_it_waited_for() -> None:
    steps = [
        record("short", 0, 1),
        record("long", 0, 5),
        record("beside", 0, 6),
        record("join", 7, 10, ("short", "long")),
    ]

    path = path_of(steps, 11)

    assert path.steps == (
        Timing(step="long", blocked=0, queued=0, running=5),
        Timing(step="join", blocked=5, queued=2, running=3),
    )
    assert (path.total, path.behind) == (11, 1)
    assert path.slack == {"short": 4, "long": 0, "beside": 4, "join": 0}


def test_a_fan_out_is_shown_by_the_item_that_took_longest() -> None:
    steps = [
        record("list", 0, 1),
        record("roll", 1, 9, ("list",)),
        record("roll[0].make", 1, 2),
        record("roll[0].check", 2, 3, ("roll[0].make",)),
        record("roll[1].make", 4, 6),
        record("roll[1].check", 6, 9, ("roll[1].make",)),
        record("done", 9, 10, ("roll",)),
    ]

    path = path_of(steps, 10)

    assert names(path) == ["list", "roll[1].make", "roll[1].check", "done"]
    assert path.steps[1] == Timing(step="roll[1].make", blocked=1, queued=3, running=2)
    assert path.slack["roll[0].make"] == path.slack["roll[0].check"] == 6


def test_a_fan_out_within_a_fan_out_is_followed_to_the_bottom() -> None:
    steps = [
        record("a", 0, 8),
        record("a[0].b", 0, 7),
        record("a[0].c", 7, 8, ("a[0].b",)),
        record("a[0].b[0]", 0, 2),
        record("a[0].b[1]", 0, 5),
    ]

    path = path_of(steps, 8)

    assert names(path) == ["a[0].b[1]", "a[0].b", "a[0].c"]
    assert path.steps[1] == Timing(step="a[0].b", blocked=5, queued=0, running=2)
    assert path.slack["a[0].b[0]"] == 3


def test_a_step_that_was_skipped_or_never_ran_takes_no_time() -> None:
    steps = [record("ask", 0, 4), record("skipped", None, 4, ("ask",)), record("never", None, None, ("ask",))]

    path = path_of(steps, 4)

    assert sum(timing.running for timing in path.steps) == 4
    assert "never" not in path.slack


def test_a_run_that_did_nothing_has_no_chain() -> None:
    path = path_of([record("never")], 3)

    assert (path.steps, path.total, path.behind, path.slack) == ((), 3, 3, {})


def test_a_clock_that_was_set_back_makes_nothing_take_less_than_no_time() -> None:
    path = path_of([record("a", 5, 6), record("b", 1, 2, ("a",))], 7)

    assert path.steps[-1] == Timing(step="b", blocked=6, queued=0, running=0)


def test_what_has_not_ended_is_measured_until_now() -> None:
    steps = [
        record("done", 0, 1),
        record("runs", 2, None, ("done",)),
        record("queued", None, None, ("done",)),
        record("blocked", None, None, ("runs",)),
    ]

    found = timings(steps, START, at(10))

    assert found["runs"] == Timing(step="runs", blocked=1, queued=1, running=8)
    assert found["queued"] == Timing(step="queued", blocked=1, queued=9, running=0)
    assert "blocked" not in found


Shape = list[tuple[set[int], int, int]]
"""Of each step: which earlier ones it comes after, how long it was queued, how long it ran."""
shapes = st.lists(st.tuples(st.sets(st.integers(0, 14)), st.integers(0, 5), st.integers(0, 9)), max_size=15)


def played(shape: Shape, longer: tuple[int, float] = (-1, 0.0)) -> list[StepRecord]:
    ends: list[float] = []
    steps = []
    for number, (before, queued, ran) in enumerate(shape):
        after = sorted(index for index in before if index < number)
        started = max((ends[index] for index in after), default=0.0) + queued
        ends.append(started + ran + (longer[1] if number == longer[0] else 0.0))
        steps.append(record(f"s{number}", started, ends[-1], tuple(f"s{index}" for index in after)))
    return steps


def length(steps: list[StepRecord]) -> float:
    return max(((step.finished or START) - START).total_seconds() for step in steps)


@given(shapes.filter(bool))
def test_the_chain_takes_as_long_as_the_run_and_has_no_slack(shape: Shape) -> None:
    steps = played(shape)

    path = path_of(steps, length(steps) + 1)

    assert sum(timing.queued + timing.running for timing in path.steps) + path.behind == path.total
    assert all(path.slack[timing.step] == 0 for timing in path.steps)


@given(shapes.filter(bool), st.data())
def test_a_step_may_take_longer_by_its_slack_and_no_more(shape: Shape, data: st.DataObject) -> None:
    steps = played(shape)
    total = length(steps)
    number = data.draw(st.integers(0, len(shape) - 1))

    slack = path_of(steps, total).slack[f"s{number}"]

    assert length(played(shape, (number, slack))) == total
    assert length(played(shape, (number, slack + 1))) == total + 1


async def test_the_steps_of_a_real_run_can_be_asked(engine: FlowEngine, shop: Workshop) -> None:
    text = """
flow: real
input: {}
steps:
  list: {use: w.make, with: {name: a}}
  beside: {use: w.make, with: {name: b}}
  roll: {use: w.make, each: [x, y, z], with: {name: $item}, after: [list]}
  done: {use: w.make, with: {name: c}, after: [roll]}
"""
    run = await engine.start(engine.parse(text), {})
    ended = await engine.wait(run, 10)
    assert ended.started is not None
    assert ended.finished is not None

    path = critical_path(await engine.steps(run), ended.started, ended.finished)

    assert (names(path)[0], names(path)[-1]) == ("list", "done")
    assert any(name.startswith("roll[") for name in names(path))
    assert 0 < sum(timing.running for timing in path.steps) <= path.total
