"""Runs from start to end: order, values, failure and undo, retries, cancelling, watching."""

import asyncio
from typing import Any

import pytest
from tests.flow import workshop
from tests.flow.workshop import Workshop

from skep.flow import (
    Context,
    Database,
    FlowEngine,
    InputError,
    Registry,
    RunEvent,
    RunRecord,
    RunState,
    StepState,
    UnknownFlow,
    UnknownRun,
    WrongState,
)
from skep.flow.testing import BrokenAtCommit

DIAMOND = """
flow: diamond
input: {name: str}
steps:
  a: {use: w.make, with: {name: a}}
  b: {use: w.make, with: {name: b}, after: [a]}
  c: {use: w.make, with: {name: c}, after: [a]}
  d: {use: w.gather, with: {names: [$b, $c, $input.name, "$$$b-$input.name"]}}
output: {all: $d, name: $input.name}
"""


NAMED = """
flow: named
input: {name: str}
steps:
  a: {use: w.make, with: {name: $input.name}}
"""


async def finish(engine: FlowEngine, text: str, input: dict[str, Any] | None = None) -> RunRecord:  # noqa: A002
    return await engine.wait(await engine.start(engine.parse(text), input or {}), timeout=10)


async def kinds(engine: FlowEngine, record: RunRecord) -> list[str]:
    return [f"{event.step} {event.kind}".strip() for event in await engine.history(record.id)]


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.002)


async def test_steps_run_in_the_order_of_their_wiring_and_hand_on_their_results(
    engine: FlowEngine, shop: Workshop
) -> None:
    record = await finish(engine, DIAMOND, {"name": "n"})

    assert record.state is RunState.SUCCEEDED
    assert record.output == {"all": {"b": 0, "c": 0, "n": 0, "$b-n": 0}, "name": "n"}
    assert (record.done, record.total) == (4, 4)
    assert shop.log[0] == "a"
    assert shop.log[-1] == "gather"


async def test_steps_that_do_not_wait_for_each_other_run_at_the_same_time(
    engine: FlowEngine, shop: Workshop
) -> None:
    gates = [shop.block("b"), shop.block("c")]
    run = await engine.start(engine.parse(DIAMOND), {"name": "n"})

    await until(lambda: shop.running == 2)
    for gate in gates:
        gate.set()

    assert (await engine.wait(run, 5)).state is RunState.SUCCEEDED


async def test_no_more_steps_run_at_once_than_the_engine_allows(
    database: Database, registry: Registry, shop: Workshop
) -> None:
    steps = "".join(f"  s{i}: {{use: w.make, with: {{name: s{i}}}}}\n" for i in range(20))

    async with FlowEngine(database, registry, shop.environment, concurrency=3) as engine:
        record = await finish(engine, f"flow: wide\nsteps:\n{steps}")

    assert record.state is RunState.SUCCEEDED
    assert shop.most_running <= 3


async def test_a_step_is_sent_where_its_on_says(engine: FlowEngine, shop: Workshop) -> None:
    record = await finish(
        engine,
        """
flow: routed
steps:
  p: {use: w.place, with: {name: p}}
  v: {use: w.visit, on: agent.$p.host, with: {name: v, host: $p.host, port: $p.port}}
output: {port: $v}
""",
    )

    assert record.output == {"port": 80.0}
    assert shop.routes == ["", "agent.host1"]


async def test_a_route_nobody_answers_is_a_failure_that_says_so(engine: FlowEngine) -> None:
    record = await finish(engine, "flow: f\nsteps:\n  a: {use: w.make, on: agent.gone, with: {name: a}}\n")

    assert record.state is RunState.FAILED  # it never ran, so nobody is asked to undo it
    assert record.error == "step a: no agent answers to agent.gone"


async def test_what_was_done_at_a_place_that_is_no_more_is_undone_by_that(
    engine: FlowEngine, shop: Workshop
) -> None:
    gate = shop.block("b")
    run = await engine.start(
        engine.parse(
            """
flow: f
steps:
  a: {use: w.make, on: agent.host1, with: {name: a}}
  b: {use: w.make, with: {name: b}, after: [a]}
  c: {use: w.make, on: agent.host1, with: {name: c}, after: [b], retry: 5}
"""
        ),
        {},
    )

    await until(lambda: "a" in shop.made and shop.running == 1)
    shop.gone.add("agent.host1")
    gate.set()
    record = await engine.wait(run, 5)

    assert (record.state, record.error) == (RunState.FAILED, "step c: agent.host1 is no more")
    assert shop.made == {"a"}  # it is where nobody comes any more
    assert shop.log == ["a", "b", "undo b"]


async def test_a_failure_undoes_everything_in_reverse_and_names_the_step(
    engine: FlowEngine, shop: Workshop
) -> None:
    shop.fail("gather", ValueError("the shelf is full"))

    record = await finish(engine, DIAMOND, {"name": "n"})

    assert record.state is RunState.FAILED
    assert record.error == "step d: the shelf is full"
    assert shop.made == set()
    assert shop.log[-1] == "undo a"
    assert set(shop.log[-3:-1]) == {"undo b", "undo c"}


async def test_running_steps_are_awaited_and_no_new_ones_start_after_a_failure(
    engine: FlowEngine, shop: Workshop
) -> None:
    gate = shop.block("b")
    shop.fail("c", ValueError("broken"))
    run = await engine.start(engine.parse(DIAMOND), {"name": "n"})
    await until(lambda: shop.calls["c"])
    await asyncio.sleep(0.05)

    assert not any(entry.startswith("undo") for entry in shop.log)
    gate.set()

    assert (await engine.wait(run, 5)).error == "step c: broken"
    assert "gather" not in shop.log
    assert shop.made == set()
    assert shop.log.index("undo b") < shop.log.index("undo a")


async def test_the_failed_step_itself_is_undone_for_it_may_have_done_half(
    engine: FlowEngine, shop: Workshop
) -> None:
    shop.fail("a", ValueError("half done"))

    record = await finish(engine, DIAMOND, {"name": "n"})
    steps = {step.name: step for step in await engine.steps(record.id)}

    assert shop.log == ["a", "undo a"]
    assert steps["a"].state is StepState.FAILED
    assert steps["a"].message == "half done"
    assert steps["b"].state is StepState.PENDING
    assert steps["b"].after == ("a",)


async def test_an_undo_that_keeps_failing_asks_an_operator_and_can_be_retried(
    engine: FlowEngine, shop: Workshop
) -> None:
    shop.fail("gather", ValueError("no"))
    shop.fail("undo b", ValueError("stuck fast"))
    run = await engine.start(engine.parse(DIAMOND), {"name": "n"})
    async for event in engine.follow(run):
        if event.kind == "run-needs-operator":
            break

    assert shop.calls["undo b"] == 5
    assert (await engine.get(run)).state is RunState.NEEDS_OPERATOR
    stuck = [step for step in await engine.steps(run) if step.state is StepState.NEEDS_OPERATOR]
    assert [(step.name, step.message) for step in stuck] == [("b", "undo failed: stuck fast")]
    with pytest.raises(WrongState):
        await engine.resolve(run, "a", "retry")

    del shop.faults["undo b"]
    await engine.resolve(run, "b", "retry", by="kim")

    assert (await engine.wait(run, 5)).state is RunState.FAILED
    assert shop.made == set()
    resolved = [event for event in await engine.history(run) if event.kind == "resolved"]
    assert [(event.step, event.message) for event in resolved] == [("b", "retry by kim")]


@pytest.mark.parametrize(("choice", "state"), [("skip", StepState.KEPT), ("mark-undone", StepState.UNDONE)])
async def test_an_operator_may_leave_what_cannot_be_undone(
    engine: FlowEngine, shop: Workshop, choice: Any, state: StepState
) -> None:
    shop.fail("gather", ValueError("no"))
    shop.fail("undo b", ValueError("stuck fast"))
    run = await engine.start(engine.parse(DIAMOND), {"name": "n"})
    async for event in engine.follow(run):
        if event.kind == "run-needs-operator":
            break

    await engine.resolve(run, "b", choice)

    assert (await engine.wait(run, 5)).state is RunState.FAILED
    assert shop.made == {"b"}
    assert {step.name: step.state for step in await engine.steps(run)}["b"] is state


async def test_any_error_is_retried_as_often_as_the_step_says(engine: FlowEngine, shop: Workshop) -> None:
    shop.fail("f", ValueError("flaky"), times=2)

    record = await finish(engine, "flow: f\nsteps:\n  f: {use: w.flaky, with: {name: f}}\noutput: {x: $f}\n")

    assert record.output == {"x": "f3"}
    assert (await kinds(engine, record)).count("f retrying") == 2


async def test_the_document_may_override_retry(engine: FlowEngine, shop: Workshop) -> None:
    shop.fail("f", ValueError("flaky"), times=2)

    record = await finish(engine, "flow: f\nsteps:\n  f: {use: w.flaky, with: {name: f}, retry: 1}\n")

    assert record.error == "step f: flaky"
    assert shop.calls["f"] == 2


async def test_retry_raised_by_the_step_always_retries_within_its_time(
    engine: FlowEngine, shop: Workshop
) -> None:
    run = await engine.start(engine.parse("flow: f\nsteps:\n  f: {use: w.wait, with: {name: f}}\n"), {})
    await until(lambda: shop.calls["f"] > 2)
    shop.made.add("f")

    assert (await engine.wait(run, 5)).state is RunState.SUCCEEDED

    late = await finish(engine, "flow: f\nsteps:\n  g: {use: w.wait, with: {name: g}}\n")
    assert late.error == "step g: g is not there"
    assert shop.calls["g"] > 2


async def test_a_step_that_takes_too_long_is_cancelled_and_named(engine: FlowEngine, shop: Workshop) -> None:
    shop.block("f")

    record = await finish(engine, "flow: f\nsteps:\n  f: {use: w.flaky, with: {name: f}, retry: 0}\n")

    assert record.error == "step f: took longer than 0.05 s"


async def test_what_a_step_said_last_is_told_while_it_runs_and_when_it_took_too_long(
    engine: FlowEngine, shop: Workshop
) -> None:
    shop.block("v")
    text = "flow: f\nsteps:\n  v: {use: w.visit, with: {name: v, host: here}, timeout: 1s}\n"

    run = await engine.start(engine.parse(text), {})
    await until(lambda: shop.calls["v"] == 1)
    (wait,) = await engine.why(run)

    assert wait.reasons[0].message.endswith(": visiting here")
    assert (await engine.wait(run, 5)).error == "step v: took longer than 1 s: visiting here"


async def test_an_at_most_once_step_that_takes_too_long_asks_an_operator(
    engine: FlowEngine, shop: Workshop
) -> None:
    gate = shop.block("f")
    text = "flow: f\nsteps:\n  f: {use: w.launch, with: {name: f}, timeout: 50ms}\n"
    run = await engine.start(engine.parse(text), {})
    await until(lambda: shop.calls["f"] and not shop.running)
    await asyncio.sleep(0.05)

    assert (await engine.get(run)).state is RunState.NEEDS_OPERATOR
    gate.set()
    await engine.resolve(run, "f", "skip", by="kim")

    assert (await engine.wait(run, 5)).state is RunState.SUCCEEDED
    assert shop.calls["f"] == 1


async def test_a_step_whose_result_is_needed_cannot_be_skipped(engine: FlowEngine, shop: Workshop) -> None:
    shop.block("f")
    text = "flow: f\nsteps:\n  f: {use: w.launch, with: {name: f}, timeout: 10ms}\noutput: {x: $f}\n"
    run = await engine.start(engine.parse(text), {})
    async for event in engine.follow(run):
        if event.kind == "run-needs-operator":
            break

    with pytest.raises(WrongState, match="cannot be skipped"):
        await engine.resolve(run, "f", "skip")
    await engine.resolve(run, "f", "mark-undone")

    assert (await engine.wait(run, 5)).state is RunState.FAILED


async def test_a_step_that_returns_garbage_fails_by_name(engine: FlowEngine) -> None:
    record = await finish(engine, "flow: f\nsteps:\n  f: {use: w.lie, with: {name: f}}\n")

    assert record.state is RunState.FAILED
    assert record.error.startswith("step f: returned str, which is not int: ")


async def test_an_error_is_told_by_its_message_and_without_its_traceback(
    engine: FlowEngine, shop: Workshop
) -> None:
    class Rude(Exception):
        message = "said politely"

    shop.fail("a", Rude("internal detail"))

    record = await finish(engine, DIAMOND, {"name": "n"})

    assert record.error == "step a: said politely"


async def test_the_writes_of_a_transactional_step_vanish_if_it_fails(
    engine: FlowEngine, shop: Workshop
) -> None:
    shop.fail("f", ValueError("no"))

    record = await finish(engine, "flow: f\nsteps:\n  f: {use: w.enlist, with: {name: f}}\n")

    assert record.state is RunState.FAILED
    assert shop.log == ["f"]  # what was rolled back is not undone
    assert await shop.things() == []


async def test_a_transactional_step_is_undone_in_a_transaction(engine: FlowEngine, shop: Workshop) -> None:
    shop.fail("g", ValueError("no"))
    first, then = "f: {use: w.enlist, with: {name: f}}", "g: {use: w.make, with: {name: g}, after: [f]}"
    text = f"flow: f\nsteps:\n  {first}\n  {then}\n"

    record = await finish(engine, text)

    assert record.state is RunState.FAILED
    assert shop.log == ["f", "g", "undo g", "undo f"]
    assert await shop.things() == []


async def test_cancelling_stops_what_runs_and_undoes_what_was_done(
    engine: FlowEngine, shop: Workshop
) -> None:
    shop.block("b")
    run = await engine.start(engine.parse(DIAMOND), {"name": "n"})
    await until(lambda: shop.calls["b"])

    await engine.cancel(run)
    record = await engine.wait(run, 5)

    assert record.state is RunState.CANCELLED
    assert shop.made == set()
    with pytest.raises(WrongState):
        await engine.cancel(run)


async def test_cancelling_does_not_wait_for_a_back_off(
    database: Database, registry: Registry, shop: Workshop
) -> None:
    shop.fail("f", ValueError("flaky"))

    async with FlowEngine(database, registry, shop.environment, retry_delay=lambda _tries: 60.0) as engine:
        run = await engine.start(engine.parse("flow: f\nsteps:\n  f: {use: w.flaky, with: {name: f}}\n"), {})
        await until(lambda: shop.calls["f"] and not shop.running)
        await asyncio.sleep(0.02)
        await engine.cancel(run)

        assert (await engine.wait(run, 5)).state is RunState.CANCELLED


async def test_progress_is_kept_in_the_history_and_shown_with_the_step(engine: FlowEngine) -> None:
    text = "flow: f\nsteps:\n  v: {use: w.visit, with: {name: v, host: here}}\n"

    record = await finish(engine, text)

    assert [e.message for e in await engine.history(record.id) if e.kind == "progress"] == ["visiting here"]
    assert [step.message for step in await engine.steps(record.id)] == ["visiting here"]


async def test_the_history_tells_everything_once_and_in_order(engine: FlowEngine) -> None:
    record = await finish(engine, "flow: f\nsteps:\n  a: {use: w.make, with: {name: a}}\n")

    assert await kinds(engine, record) == ["run-created", "run-started", "a succeeded", "run-succeeded"]


async def test_a_step_that_takes_its_time_is_shown_as_running(engine: FlowEngine, shop: Workshop) -> None:
    gate = shop.block("a")
    run = await engine.start(engine.parse("flow: f\nsteps:\n  a: {use: w.make, with: {name: a}}\n"), {})
    async for event in engine.follow(run):
        if event.kind == "started":
            break

    [shown] = await engine.steps(run)
    gate.set()

    assert shown.state is StepState.RUNNING
    assert (await engine.wait(run, 5)).state is RunState.SUCCEEDED


async def test_following_gives_every_event_once_whenever_one_begins(
    engine: FlowEngine, shop: Workshop
) -> None:
    gate = shop.block("b")
    run = await engine.start(engine.parse(DIAMOND), {"name": "n"})

    async def watch(pause: float) -> list[RunEvent]:
        await asyncio.sleep(pause)
        return [event async for event in engine.follow(run)]

    watchers = [asyncio.create_task(watch(i * 0.01)) for i in range(5)]
    await asyncio.sleep(0.03)
    gate.set()
    await engine.wait(run, 5)
    seen = [await watcher for watcher in (*watchers, asyncio.create_task(watch(0)))]

    assert seen == [await engine.history(run)] * 6
    assert [event.sequence for event in seen[0]] == list(range(1, len(seen[0]) + 1))
    assert seen[0][-1].kind == "run-succeeded"


async def test_the_same_key_answers_the_same_run(engine: FlowEngine) -> None:
    flow = engine.parse(DIAMOND)

    both = await asyncio.gather(*(engine.start(flow, {"name": "n"}, tenant="t", key="k") for _ in range(5)))
    other = await engine.start(flow, {"name": "n"}, tenant="u", key="k")

    assert len(set(both)) == 1
    assert other not in both


async def test_a_transaction_given_at_the_start_commits_with_the_run_or_not_at_all(
    engine: FlowEngine, shop: Workshop
) -> None:
    async def broken(connection: Any) -> None:
        await connection.exec_driver_sql("INSERT INTO things VALUES ('x')")
        raise RuntimeError("after all not")

    async def sound(connection: Any) -> None:
        await connection.exec_driver_sql("INSERT INTO things VALUES ('y')")

    with pytest.raises(RuntimeError):
        await engine.start(engine.parse(DIAMOND), {"name": "n"}, transaction=broken)
    run = await engine.start(engine.parse(DIAMOND), {"name": "n"}, transaction=sound)

    assert await shop.things() == ["y"]
    assert [record.id for record in await engine.list()] == [run]
    await engine.wait(run, 5)


async def test_input_that_does_not_fit_is_refused_with_every_reason(engine: FlowEngine) -> None:
    flow = engine.parse("flow: f\ninput: {name: str, size: int, note: str | None}\nsteps: {}\n")

    with pytest.raises(InputError) as caught:
        await engine.start(flow, {"size": "big", "colour": "red"})

    assert "there is no input 'colour'" in str(caught.value)
    assert "input 'name' (str) is missing" in str(caught.value)
    assert "input 'size' must be int" in str(caught.value)
    assert (
        await finish(engine, "flow: f\ninput: {note: str | None}\nsteps: {}\n")
    ).state is RunState.SUCCEEDED


async def test_runs_are_listed_newest_first_by_tenant_label_and_activity(
    engine: FlowEngine, shop: Workshop
) -> None:
    flow = engine.parse(NAMED)
    gate = shop.block("slow")
    one = await engine.start(flow, {"name": "a"}, tenant="t", labels={"app": "x"})
    two = await engine.start(flow, {"name": "b"}, tenant="t", labels={"app": "y"})
    three = await engine.start(flow, {"name": "slow"}, tenant="u", labels={"app": "x"})
    await engine.wait(one, 5)
    await engine.wait(two, 5)

    async def ids(**conditions: Any) -> list[str]:
        return [record.id for record in await engine.list(**conditions)]

    assert await ids() == [three, two, one]
    assert await ids(tenant="t") == [two, one]
    assert await ids(labels={"app": "x"}) == [three, one]
    assert await ids(active=True) == [three]
    assert await ids(active=False, limit=1) == [two]
    assert await ids(before=two) == [one]
    gate.set()


async def test_whoever_asked_is_told_of_every_end(engine: FlowEngine, shop: Workshop) -> None:
    ends: list[tuple[str, str]] = []
    engine.on_end(lambda record: ends.append((record.id, record.state)))
    shop.fail("bad", ValueError("no"))
    flow = engine.parse(NAMED)

    runs = [await engine.start(flow, {"name": name}) for name in ("good", "bad")]
    for run in runs:
        await engine.wait(run, 5)
    await until(lambda: len(ends) == 2)

    assert sorted(ends) == sorted(zip(runs, ["succeeded", "failed"], strict=True))


async def test_what_does_not_exist_is_said(engine: FlowEngine) -> None:
    with pytest.raises(UnknownFlow, match="nothing"):
        await engine.start("nothing", {})
    with pytest.raises(UnknownRun):
        await engine.get("nothing")  # type: ignore[arg-type]
    with pytest.raises(UnknownRun):
        await engine.cancel("nothing")  # type: ignore[arg-type]


async def test_a_step_stays_callable_as_a_plain_function(shop: Workshop) -> None:
    cx = Context(shop)

    assert await workshop.make(cx, name="x") == "x"
    assert await workshop.make(cx, "x") == "x"
    await workshop.unmake(cx, "x")

    assert shop.made == set()
    with pytest.raises(RuntimeError, match="not transactional"):
        _ = cx.tx


async def test_a_run_whose_commit_was_in_doubt_is_begun_once(
    url: str, registry: Registry, shop: Workshop
) -> None:
    database = await BrokenAtCommit.open(url, durable=False)
    await shop.attach(database)
    async with FlowEngine(database, registry, shop.environment) as engine:
        flow, times = engine.parse(DIAMOND), 0

        async def count(_connection: object) -> None:
            nonlocal times
            times += 1

        await engine.wait(await engine.start(flow, {"name": "n"}), 5)
        database.breaks = 1
        run = await engine.start(flow, {"name": "n"}, transaction=count)
        record = await engine.wait(run, 5)

        assert (record.state, times) == (RunState.SUCCEEDED, 1)
        assert len(await engine.list()) == 2
    await database.close()
