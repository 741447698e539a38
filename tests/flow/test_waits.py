"""Steps that wait for somebody or for a time, and conditions."""

from datetime import UTC, datetime, timedelta

import pytest
from tests.flow.workshop import Workshop

from skep.flow import Database, FlowEngine, Registry, RunId, RunState, StepState, WrongState

APPROVAL = """
flow: deploy
steps:
  make: {use: w.make, with: {name: a}}
  ok: {wait: approval, with: {message: "Deploy $make?"}, timeout: 1h}
  go: {use: w.make, with: {name: b}, after: [ok]}
"""

SIGNAL = """
flow: pay
steps:
  paid: {wait: signal, with: {name: payment}, as: Place, timeout: 1h}
  go: {use: w.visit, with: {name: go, host: $paid.host, port: $paid.port}}
"""

CHOICE = """
flow: choice
input: {size: int, mode: str | None}
steps:
  big: {use: w.make, with: {name: big}, when: $input.size > 10 and $input.mode != 'dry'}
  small: {use: w.make, with: {name: small}, when: not ($input.size > 10)}
  end: {use: w.make, with: {name: end}, after: [big, small]}
"""


async def until(engine: FlowEngine, run: RunId, state: RunState) -> None:
    async for _ in engine.follow(run):
        if (await engine.get(run)).state is state:
            return
    raise AssertionError(f"the run ended, and was never {state}")


async def test_an_approval_holds_the_run_until_somebody_answers(engine: FlowEngine, shop: Workshop) -> None:
    run = await engine.start(engine.parse(APPROVAL), {})
    await until(engine, run, RunState.WAITING)
    [wait] = [wait for wait in await engine.why(run) if wait.step == "ok"]

    await engine.approve(run, "ok", by="kim")

    assert (await engine.wait(run, 5)).state is RunState.SUCCEEDED
    assert wait.reasons[0].kind == "approval"
    assert wait.reasons[0].message == "Deploy a?"
    assert shop.log == ["a", "b"]


async def test_a_refused_approval_fails_the_run_and_undoes_it(engine: FlowEngine, shop: Workshop) -> None:
    run = await engine.start(engine.parse(APPROVAL), {})
    await until(engine, run, RunState.WAITING)

    await engine.approve(run, "ok", False, by="kim", comment="not today")

    record = await engine.wait(run, 5)
    assert record.state is RunState.FAILED
    assert record.error == "step ok: refused by kim: not today"
    assert shop.made == set()


async def test_only_a_step_that_waits_can_be_approved(engine: FlowEngine) -> None:
    run = await engine.start(engine.parse(APPROVAL), {})
    await until(engine, run, RunState.WAITING)

    with pytest.raises(WrongState, match="does not wait for an approval"):
        await engine.approve(run, "go", by="kim")


@pytest.mark.parametrize("early", [True, False])
async def test_a_signal_is_kept_until_a_step_takes_it(
    engine: FlowEngine, shop: Workshop, early: bool
) -> None:
    text = SIGNAL
    if early:
        gate = shop.block("slow")
        text = SIGNAL.replace("timeout: 1h", "timeout: 1h, after: [slow]").replace(
            "steps:\n", "steps:\n  slow: {use: w.make, with: {name: slow}}\n"
        )
    run = await engine.start(engine.parse(text), {})
    if not early:
        await until(engine, run, RunState.WAITING)

    await engine.signal(run, "payment", {"host": "h", "port": 7}, key="1")
    await engine.signal(run, "payment", {"host": "other"}, key="1")
    if early:
        gate.set()

    assert (await engine.wait(run, 5)).state is RunState.SUCCEEDED
    assert "go" in shop.calls


async def test_a_signal_that_comes_again_after_the_end_is_no_fault(engine: FlowEngine) -> None:
    run = await engine.start(engine.parse(SIGNAL), {})
    await engine.signal(run, "payment", {"host": "h", "port": 7}, key="1")
    await engine.wait(run, 5)

    await engine.signal(run, "payment", {"host": "h", "port": 7}, key="1")

    with pytest.raises(WrongState):
        await engine.signal(run, "payment", {"host": "h", "port": 7}, key="2")


async def test_a_signal_of_another_shape_fails_the_step(engine: FlowEngine) -> None:
    run = await engine.start(engine.parse(SIGNAL), {})
    await until(engine, run, RunState.WAITING)

    await engine.signal(run, "payment", {"port": "many"})

    record = await engine.wait(run, 5)
    assert record.state is RunState.FAILED
    assert "step paid" in record.error


async def test_a_wait_that_nobody_answers_in_time_fails(engine: FlowEngine) -> None:
    run = await engine.start(engine.parse(SIGNAL.replace("1h", "50ms")), {})

    assert (await engine.wait(run, 5)).error == "step paid: nobody answered within 0.05 s"


async def test_waits_for_a_duration_and_until_a_time(engine: FlowEngine, shop: Workshop) -> None:
    text = """
flow: later
input: {at: str}
steps:
  nap: {wait: for, with: {duration: 100ms}}
  night: {wait: until, with: {time: $input.at}}
  go: {use: w.make, with: {name: go}, after: [nap, night]}
"""
    at = datetime.now(UTC) + timedelta(seconds=0.15)
    run = await engine.start(engine.parse(text), {"at": at.isoformat()})

    record = await engine.wait(run, 5)

    assert record.state is RunState.SUCCEEDED
    assert datetime.now(UTC) >= at
    assert shop.log == ["go"]


async def test_waits_survive_the_death_of_the_process(url: str, registry: Registry, shop: Workshop) -> None:
    database = await Database.open(url, durable=False)
    await shop.attach(database)
    engine = FlowEngine(database, registry, shop.environment, grace=0)
    await engine.__aenter__()
    approval = await engine.start(engine.parse(APPROVAL), {})
    nap = "flow: nap\nsteps: {nap: {wait: for, with: {duration: 300ms}}}\n"
    sleeper = await engine.start(engine.parse(nap), {})
    await until(engine, approval, RunState.WAITING)
    await until(engine, sleeper, RunState.WAITING)
    await engine.abandon()
    await database.abandon()

    database = await Database.open(url, durable=False)
    async with FlowEngine(database, registry, shop.environment, grace=0) as engine:
        await engine.approve(approval, "ok", by="kim")
        assert (await engine.wait(approval, 5)).state is RunState.SUCCEEDED
        assert (await engine.wait(sleeper, 5)).state is RunState.SUCCEEDED
    await database.close()
    assert shop.calls["a"] == 1


async def test_a_run_that_waits_can_be_cancelled(engine: FlowEngine, shop: Workshop) -> None:
    run = await engine.start(engine.parse(APPROVAL), {})
    await until(engine, run, RunState.WAITING)

    await engine.cancel(run)

    assert (await engine.wait(run, 5)).state is RunState.CANCELLED
    assert shop.made == set()


@pytest.mark.parametrize(
    ("size", "mode", "made"), [(11, None, {"big", "end"}), (11, "dry", {"end"}), (3, None, {"small", "end"})]
)
async def test_a_step_whose_condition_does_not_hold_is_skipped(
    engine: FlowEngine, shop: Workshop, size: int, mode: str | None, made: set[str]
) -> None:
    run = await engine.start(engine.parse(CHOICE), {"size": size, "mode": mode})

    assert (await engine.wait(run, 5)).state is RunState.SUCCEEDED
    assert shop.made == made
    states = {step.name: step.state for step in await engine.steps(run)}
    assert {name for name, state in states.items() if state is StepState.SKIPPED} == {"big", "small"} - made


async def test_the_deadline_of_a_run_ends_it_wherever_it_is(engine: FlowEngine, shop: Workshop) -> None:
    shop.block("b")
    text = """
flow: slow
timeout: 200ms
steps:
  a: {use: w.make, with: {name: a}}
  b: {use: w.make, with: {name: b}, after: [a]}
"""
    run = await engine.start(engine.parse(text), {})

    record = await engine.wait(run, 5)

    assert record.state is RunState.FAILED
    assert record.error == "the deadline of the run has passed"
    assert shop.made == set()


async def test_a_step_that_gives_no_sign_of_life_is_interrupted(engine: FlowEngine, shop: Workshop) -> None:
    shop.block("quiet")
    text = "flow: f\ninput: {name: str}\nsteps: {a: {use: w.beat, with: {name: $input.name, times: 6}}}\n"
    quiet = await engine.start(engine.parse(text), {"name": "quiet"})
    lively = await engine.start(engine.parse(text), {"name": "lively"})

    assert (await engine.wait(quiet, 5)).error == "step a: gave no sign of life for 0.1 s"
    assert (await engine.wait(lively, 5)).state is RunState.SUCCEEDED
