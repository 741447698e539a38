"""Metrics and spans of a real engine."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.flow.workshop import Workshop

from skep.flow import Database, FlowEngine, Priority, Registry, RunId, RunState
from skep.flow.monitoring import metrics as module
from skep.flow.monitoring.loop_lag import LoopLag
from skep.flow.monitoring.metrics import Metrics
from skep.flow.runs import RunRow

WORK = """
flow: work
input: {a: str, b: str}
steps:
  first: {use: w.make, with: {name: $input.a}}
  second: {use: w.make, with: {name: $input.b}, after: [first], retry: 1}
"""


@pytest.fixture
async def metrics(engine: FlowEngine, database: Database) -> AsyncIterator[Metrics]:
    metrics = Metrics(engine, database)
    engine.add_observer(metrics)
    metrics.lag.start()
    yield metrics
    metrics.lag.stop()


async def values(metrics: Metrics) -> dict[str, float]:
    """By name and labels: `name{a=x,b=y}`."""
    text = (await metrics.render()).decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


async def work(engine: FlowEngine, a: str = "a", b: str = "b") -> RunState:
    run = await engine.start(engine.parse(WORK), {"a": a, "b": b})
    return (await engine.wait(run, 20)).state


async def test_runs_and_steps_are_counted_with_how_they_ended(
    engine: FlowEngine, metrics: Metrics, shop: Workshop
) -> None:
    shop.fail("bad", RuntimeError("no"))
    await work(engine)
    await work(engine, b="bad")

    found = await values(metrics)

    assert found["skep_flow_runs_started_total{flow=work}"] == 2
    assert found["skep_flow_runs_ended_total{flow=work,state=succeeded}"] == 1
    assert found["skep_flow_runs_ended_total{flow=work,state=failed}"] == 1
    assert found["skep_flow_steps_total{flow=work,outcome=succeeded,step=w.make}"] == 3
    assert found["skep_flow_steps_total{flow=work,outcome=failed,step=w.make}"] == 2
    assert found["skep_flow_steps_total{flow=work,outcome=succeeded,step=undo:w.make}"] == 2
    assert found["skep_flow_step_seconds_count{step=w.make}"] == 5
    assert found["skep_flow_run_seconds_count{flow=work}"] == 2


async def test_latencies_are_in_the_bucket_of_their_length(
    engine: FlowEngine, metrics: Metrics, shop: Workshop
) -> None:
    async def slow() -> None:
        await asyncio.sleep(0.12)

    shop.faults["a"] = slow
    await work(engine)

    found = await values(metrics)

    assert found["skep_flow_step_seconds_bucket{le=0.1,step=w.make}"] == 1
    assert found["skep_flow_step_seconds_bucket{le=+Inf,step=w.make}"] == 2
    assert found["skep_flow_step_seconds_sum{step=w.make}"] >= 0.12


async def test_what_runs_and_what_is_queued_is_shown_by_priority(
    database: Database, registry: Registry, shop: Workshop
) -> None:
    async with FlowEngine(database, registry, shop.environment, concurrency=1, grace=0.0) as engine:
        metrics = Metrics(engine, database)
        engine.add_observer(metrics)
        release = shop.block("a")
        flow = engine.parse(WORK)
        first = await engine.start(flow, {"a": "a", "b": "b"}, priority=Priority.URGENT)
        while shop.running < 1:
            await asyncio.sleep(0.005)
        second = await engine.start(flow, {"a": "c", "b": "d"}, priority=Priority.BULK)
        while sum(engine.depths().values()) < 1:
            await asyncio.sleep(0.005)

        before = await values(metrics)
        release.set()
        await engine.wait(first, 20)
        await engine.wait(second, 20)
        after = await values(metrics)

    assert before["skep_flow_steps_running{}"] == 1
    assert before["skep_flow_queue_depth{priority=bulk}"] == 1
    assert after["skep_flow_steps_running{}"] == 0
    assert after["skep_flow_queue_depth{priority=bulk}"] == 0
    assert after["skep_flow_admission_wait_seconds_count{priority=bulk}"] >= 1


async def test_commits_and_their_rows_are_counted(engine: FlowEngine, metrics: Metrics) -> None:
    before = await values(metrics)
    await work(engine)

    after = await values(metrics)

    assert after["skep_flow_commits_total{}"] > before["skep_flow_commits_total{}"]
    assert after["skep_flow_rows_total{}"] >= before["skep_flow_rows_total{}"] + 5
    assert after["skep_flow_commit_seconds_total{}"] > before["skep_flow_commit_seconds_total{}"]


async def test_a_run_that_is_taken_up_after_a_crash_counts_as_resumed(
    database: Database, registry: Registry, shop: Workshop
) -> None:
    first = FlowEngine(database, registry, shop.environment)
    await first.__aenter__()
    release = shop.block("b")
    run = await first.start(first.parse(WORK), {"a": "a", "b": "b"})
    while shop.calls["b"] < 1:
        await asyncio.sleep(0.005)
    await first.abandon()
    release.set()

    second = FlowEngine(database, registry, shop.environment)
    metrics = Metrics(second, database)
    second.add_observer(metrics)
    async with second:
        await second.wait(run, 20)
        found = await values(metrics)

    assert found["skep_flow_runs_resumed_total{after=crash}"] == 1
    assert "skep_flow_runs_started_total{flow=work}" not in found
    assert found["skep_flow_workers{state=live}"] == 1


async def test_the_loops_delay_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skep.flow.monitoring.loop_lag.PERIOD", 0.02)
    lag = LoopLag()
    lag.start()

    time.sleep(0.1)
    await asyncio.sleep(0.05)
    lag.stop()

    assert lag.lag.count >= 1
    assert lag.lag.total >= 0.07


def row(flow: str) -> RunRow:
    return RunRow(RunId("r"), flow, "", "", "", {}, None, b"{}", (), 1, 0.0, state=RunState.SUCCEEDED)


class Idle:
    def depths(self) -> dict[int, int]:
        return {}

    def under_way(self) -> int:
        return 0


async def test_ever_new_names_do_not_make_ever_more_series(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_SERIES", 10)
    metrics = Metrics(Idle(), database)

    for number in range(100):
        metrics.run_started(row(f"flow{number}"))
        metrics.step_ended(row(f"flow{number}"), "s", f"code{number}", "succeeded", 0.1)
        metrics.run_ended(row(f"flow{number}"))
    found = [*metrics.collect()]

    by_name = {family.name: family.samples for family in found}
    assert len(by_name["skep_flow_steps"]) == 11
    assert sum(sample.value for sample in by_name["skep_flow_steps"]) == 100
    assert len(by_name["skep_flow_runs_started"]) + len(by_name["skep_flow_runs_ended"]) <= 13
    assert sum(sample.value for sample in by_name["skep_flow_runs_started"]) == 100


async def test_a_step_costs_microseconds(database: Database) -> None:
    """Ten times what it takes on the reference machine, for a busy one."""
    metrics, run = Metrics(Idle(), database), row("work")
    begun = time.process_time()

    for _ in range(20_000):
        metrics.step_started(run, "first", "w.make")
        metrics.step_ended(run, "first", "w.make", "succeeded", 0.012)

    assert (time.process_time() - begun) / 20_000 < 10e-6
