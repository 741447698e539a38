"""Spans of a real engine, as OpenTelemetry's own SDK receives them."""

import asyncio

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from tests.flow.workshop import Workshop

from skep.flow import Database, FlowEngine, Registry, RunId
from skep.flow.execution.caller import at_once
from skep.flow.monitoring import spans as module
from skep.flow.monitoring.spans import Spans
from skep.flow.runs import RunRow

WORK = """
flow: work
input: {b: str}
steps:
  first: {use: w.make, with: {name: a}}
  second: {use: w.make, with: {name: $input.b}, after: [first], retry: 1}
"""
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Collected:
    """A tracer provider that keeps what it is given."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def all(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all() if span.name == name]


@pytest.fixture
def collected() -> Collected:
    return Collected()


def trace_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.trace_id)


def attribute(span: ReadableSpan, name: str) -> object:
    assert span.attributes is not None
    return span.attributes.get(f"skep.{name}")


async def work(engine: FlowEngine, b: str = "b", labels: dict[str, str] | None = None) -> RunId:
    run = await engine.start(engine.parse(WORK), {"b": b}, tenant="acme", labels=labels)
    await engine.wait(run, 20)
    return run


async def test_a_run_is_a_span_with_one_below_it_for_each_attempt(
    engine: FlowEngine, shop: Workshop, collected: Collected
) -> None:
    engine.add_observer(Spans(collected.provider))
    shop.fail("b", RuntimeError("no"), times=1)

    run = await work(engine)

    (whole,) = collected.named("run work")
    attempts = collected.named("step w.make")
    assert (attribute(whole, "run"), attribute(whole, "tenant")) == (run, "acme")
    assert (attribute(whole, "state"), whole.status.status_code) == ("succeeded", StatusCode.OK)
    assert [
        (attribute(span, "step"), attribute(span, "attempt"), attribute(span, "outcome")) for span in attempts
    ] == [
        ("first", 1, "succeeded"),
        ("second", 1, "failed"),
        ("second", 2, "succeeded"),
    ]
    assert all(span.parent is not None and span.parent == whole.context for span in attempts)


async def test_a_run_that_failed_shows_why_and_what_was_undone(
    engine: FlowEngine, shop: Workshop, collected: Collected
) -> None:
    engine.add_observer(Spans(collected.provider))
    shop.fail("bad", RuntimeError("out of paper"))

    await work(engine, b="bad")

    (whole,) = collected.named("run work")
    assert whole.status.status_code is StatusCode.ERROR
    assert "out of paper" in (whole.status.description or "")
    assert len(collected.named("step undo:w.make")) == 2


async def test_a_run_belongs_to_the_trace_of_whoever_started_it(
    engine: FlowEngine, collected: Collected
) -> None:
    engine.add_observer(Spans(collected.provider))

    await work(engine, labels={"traceparent": PARENT})

    assert {f"{trace_of(span):032x}" for span in collected.all()} == {"4bf92f3577b34da6a3ce929d0e0e4736"}
    (whole,) = collected.named("run work")
    assert whole.parent is not None
    assert f"{whole.parent.span_id:016x}" == "00f067aa0ba902b7"


async def test_a_label_that_is_no_traceparent_does_no_harm(engine: FlowEngine, collected: Collected) -> None:
    engine.add_observer(Spans(collected.provider))

    await work(engine, labels={"traceparent": "00-zz-not-a-trace"})

    assert len(collected.named("run work")) == 1


async def test_the_spans_of_the_dead_and_of_who_went_on_are_of_one_trace(
    database: Database, registry: Registry, shop: Workshop, collected: Collected
) -> None:
    first = FlowEngine(database, registry, shop.environment, observers=[Spans(collected.provider)])
    await first.__aenter__()
    release = shop.block("b")
    run = await first.start(first.parse(WORK), {"b": "b"})
    while shop.calls["b"] < 1:
        await asyncio.sleep(0.005)
    await first.abandon()
    release.set()
    others = Collected()

    async with FlowEngine(database, registry, shop.environment, observers=[Spans(others.provider)]) as second:
        await second.wait(run, 20)

    (before,) = collected.named("step w.make")
    (after,) = others.named("step w.make")
    (whole,) = others.named("run work")
    assert (attribute(before, "step"), attribute(after, "step")) == ("first", "second")
    assert trace_of(before) == trace_of(after) == trace_of(whole)
    assert attribute(whole, "epoch") == 2


async def test_spans_that_a_step_makes_are_below_its_own(
    database: Database, registry: Registry, shop: Workshop, collected: Collected
) -> None:
    spans = Spans(collected.provider)

    async def call_elsewhere() -> None:
        trace.get_tracer("elsewhere", tracer_provider=collected.provider).start_span("request").end()

    shop.faults["a"] = call_elsewhere
    async with FlowEngine(
        database, registry, shop.environment, observers=[spans], dispatch=spans.around(at_once)
    ) as engine:
        await work(engine)

    (request,) = collected.named("request")
    first = next(span for span in collected.named("step w.make") if attribute(span, "step") == "first")
    assert request.parent == first.context


def test_runs_that_others_took_over_do_not_pile_up(
    collected: Collected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_RUNS", 3)
    spans = Spans(collected.provider)

    for number in range(10):
        run = RunRow(RunId(f"r{number}"), "work", "", "", "", {}, None, b"{}", (), 1, 0.0)
        spans.run_started(run)
        spans.step_started(run, "first", "w.make")

    assert len(spans._open) == 3
    assert len(collected.named("run work")) == len(collected.named("step w.make")) == 7
