"""Spans of runs and of the attempts of their steps, for OpenTelemetry.

An observer; who adds none pays nothing.  A run belongs to the trace of whoever started it if its labels hold
a `traceparent` (W3C Trace Context), else to one whose id follows from its own.  So the spans of a worker that
has died and of the one that went on are of one trace, though neither knows of the other.
"""

import hashlib
from dataclasses import dataclass, field

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    TracerProvider,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from skep.flow.execution.attempt import Call, Outcome
from skep.flow.execution.caller import Dispatch
from skep.flow.runs import Priority, RunRow, RunState
from skep.flow.steps import RunId

MOST_RUNS = 20_000
"""Runs with an open span; of more the oldest is closed.  Those that others took over would stay for ever."""


@dataclass(slots=True)
class _Open:
    """The spans of a run here."""

    span: Span
    context: Context
    steps: dict[str, Span] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)

    def end(self, at: float | None = None) -> None:
        for span in self.steps.values():
            span.end()
        self.span.end(None if at is None else _nanoseconds(at))


def is_traced() -> bool:
    """Whether this process has a provider of its own, as under `opentelemetry-instrument`."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


class Spans:
    """`engine.add_observer(spans)`; `provider` is the process's own if none is given."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("skep.flow", tracer_provider=provider)
        self._open: dict[RunId, _Open] = {}

    def around(self, dispatch: Dispatch) -> Dispatch:
        """The same with the step's span in force, so that spans the step makes itself are below it."""

        async def dispatched(call: Call) -> Outcome:
            run = self._open.get(call.context.run)
            span = run.steps.get(call.context.step) if run is not None else None
            if span is None:
                return await dispatch(call)
            with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                return await dispatch(call)

        return dispatched

    # observer

    def run_started(self, run: RunRow) -> None:
        """One span for each worker that has the run, from when it takes it up."""
        self._forget(run.id)
        if len(self._open) >= MOST_RUNS:
            self._forget(next(iter(self._open)))
        span = self._tracer.start_span(
            f"run {run.flow}",
            _trace_of(run),
            attributes={
                "skep.run": run.id,
                "skep.flow": run.flow,
                "skep.tenant": run.tenant,
                "skep.title": run.title,
                "skep.priority": Priority(run.priority).name.lower(),
                "skep.epoch": run.epoch,
            },
            start_time=_nanoseconds(run.started) if run.epoch == 1 and run.started else None,
        )
        self._open[run.id] = _Open(span, trace.set_span_in_context(span))

    def run_ended(self, run: RunRow) -> None:
        opened = self._open.pop(run.id, None)
        if opened is None:
            return
        opened.span.set_attribute("skep.state", run.state.value)
        failed = run.state is RunState.FAILED
        opened.span.set_status(Status(StatusCode.ERROR, run.error) if failed else Status(StatusCode.OK))
        opened.end(run.finished)

    def step_admitted(self, priority: int, seconds: float) -> None:
        """Spans begin with the attempt."""

    def step_started(self, run: RunRow, step: str, code: str) -> None:
        opened = self._open.get(run.id)
        if opened is None:
            return
        attempt = opened.attempts[step] = opened.attempts.get(step, 0) + 1
        opened.steps[step] = self._tracer.start_span(
            f"step {code}",
            opened.context,
            attributes={
                "skep.run": run.id,
                "skep.step": step,
                "skep.code": code,
                "skep.attempt": attempt,
                "skep.epoch": run.epoch,
            },
        )

    def step_ended(self, run: RunRow, step: str, code: str, outcome: str, seconds: float) -> None:
        opened = self._open.get(run.id)
        span = opened.steps.pop(step, None) if opened is not None else None
        if span is None:
            return
        span.set_attribute("skep.outcome", outcome)
        if outcome != "succeeded":
            span.set_status(Status(StatusCode.ERROR, outcome))
        span.end()

    def _forget(self, run: RunId) -> None:
        opened = self._open.pop(run, None)
        if opened is not None:
            opened.end()


def _trace_of(run: RunRow) -> Context:
    """Of whoever started the run, or one that everybody makes of its id alike."""
    carrier = {
        "traceparent": run.labels.get("traceparent", ""),
        "tracestate": run.labels.get("tracestate", ""),
    }
    given = TraceContextTextMapPropagator().extract(carrier, Context())
    if trace.get_current_span(given).get_span_context().is_valid:
        return given
    digest = hashlib.sha256(run.id.encode()).digest()
    parent = SpanContext(
        trace_id=int.from_bytes(digest[:16]),
        span_id=int.from_bytes(digest[16:24]),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )
    return trace.set_span_in_context(NonRecordingSpan(parent), Context())


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1_000_000_000)
