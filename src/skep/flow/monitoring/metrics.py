"""Metrics of an engine for Prometheus.

What happens is counted in plain numbers, a microsecond per step; the metrics are made of them when somebody
asks.  Labels are names of flows and of steps' code only, and never more than `MOST_SERIES` of either kind.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from math import isfinite
from typing import Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select

from skep.flow.monitoring.latency import Latency
from skep.flow.monitoring.loop_lag import LoopLag
from skep.flow.runs import Priority, RunRow
from skep.flow.storage import tables
from skep.flow.storage.database import Database
from skep.flow.storage.shared import now

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MOST_SERIES = 2000
"""Pairs of a flow and a step, and flows; further ones are counted together as `other`."""
OTHER = "other"
Cells = Mapping[tuple[str, ...], Latency]
"""By the values of their labels."""


class Watched(Protocol):
    """What is asked of an engine."""

    def depths(self) -> Mapping[int, int]: ...

    def under_way(self) -> int: ...


class Metrics(Collector):
    """An observer of one engine: `engine.add_observer(metrics)`.  `registry` is its own."""

    def __init__(self, engine: Watched, database: Database) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self.lag = LoopLag()
        self._engine = engine
        self._database = database
        self._started: Counter[str] = Counter()
        self._resumed: Counter[str] = Counter()
        self._ended: dict[tuple[str, ...], Latency] = {}
        self._steps: dict[tuple[str, ...], Latency] = {}
        self._waits: dict[int, Latency] = defaultdict(Latency)
        self._workers: list[tuple[str, int]] = []
        self._lease: float | None = None

    async def render(self) -> bytes:
        """All metrics, in Prometheus' text format (`CONTENT_TYPE`)."""
        await self._look_at_workers()
        return generate_latest(self.registry)

    # observer

    def run_started(self, run: RunRow) -> None:
        if run.epoch > 1:
            self._resumed["crash" if run.crashes else "handover"] += 1
        else:
            self._started[run.flow if run.flow in self._started else self._flow(run.flow)] += 1

    def run_ended(self, run: RunRow) -> None:
        cell = self._ended.get((run.flow, run.state))
        if cell is None:
            cell = self._ended.setdefault((self._flow(run.flow), run.state.value), Latency())
        cell.add(max(0.0, (run.finished or run.created) - run.created))

    def step_admitted(self, priority: int, seconds: float) -> None:
        self._waits[priority].add(seconds)

    def step_started(self, run: RunRow, step: str, code: str) -> None:
        """They are counted when they end."""

    def step_ended(self, run: RunRow, step: str, code: str, outcome: str, seconds: float) -> None:
        cell = self._steps.get((run.flow, code, outcome))
        if cell is None:
            cell = self._new_step(run.flow, code, outcome)
        cell.add(seconds)

    def _new_step(self, flow: str, code: str, outcome: str) -> Latency:
        key = (flow, code, outcome) if len(self._steps) < MOST_SERIES else (OTHER, OTHER, outcome)
        return self._steps.setdefault(key, Latency())

    def _flow(self, flow: str) -> str:
        known = len(self._started) + len(self._ended)
        return flow if flow in self._started or known < MOST_SERIES else OTHER

    # collector

    def collect(self) -> Iterator[Metric]:
        """What has been counted until now."""
        yield from self._of_runs()
        yield from self._of_steps()
        yield from self._of_admission()
        yield from self._of_database()
        yield _histogram(
            "skep_flow_loop_lag_seconds", "By how much the event loop was late.", {(): self.lag.lag}
        )
        yield _gauge("skep_flow_workers", "Workers that share the database.", ["state"], self._workers)
        if self._lease is not None and isfinite(self._lease):  # who is alone has it for ever
            name, text = "skep_flow_lease_seconds", "Until the first lease of a live worker runs out."
            yield GaugeMetricFamily(name, text, value=self._lease)

    def _of_runs(self) -> Iterator[Metric]:
        yield _counter("skep_flow_runs_started", "Runs that began here.", ["flow"], self._started.items())
        text = "Runs that went on here after a crash or a handover."
        yield _counter("skep_flow_runs_resumed", text, ["after"], self._resumed.items())
        ended = [(*key, cell.count) for key, cell in self._ended.items()]
        yield _counter("skep_flow_runs_ended", "Runs that ended here.", ["flow", "state"], ended)
        flows = _summed(self._ended, 0)
        yield _histogram("skep_flow_run_seconds", "From the creation of runs to their end.", flows, ["flow"])

    def _of_steps(self) -> Iterator[Metric]:
        ended = [(*key, cell.count) for key, cell in self._steps.items()]
        text = "Attempts of steps that ended here; those of an undo are named undo:step."
        yield _counter("skep_flow_steps", text, ["flow", "step", "outcome"], ended)
        steps = _summed(self._steps, 1)
        yield _histogram("skep_flow_step_seconds", "How long attempts of steps took.", steps, ["step"])

    def _of_admission(self) -> Iterator[Metric]:
        depths = [(_priority(number), depth) for number, depth in self._engine.depths().items()]
        yield _gauge("skep_flow_queue_depth", "Steps that wait for admission.", ["priority"], depths)
        waits: Cells = {(_priority(number),): cell for number, cell in self._waits.items()}
        text = "How long steps were queued that could not go at once."
        yield _histogram("skep_flow_admission_wait_seconds", text, waits, ["priority"])
        running = self._engine.under_way()
        yield GaugeMetricFamily("skep_flow_steps_running", "Steps that run here.", value=running)

    def _of_database(self) -> Iterator[Metric]:
        totals = self._database.totals
        for name, text, value in (
            ("commits", "Transactions that became durable.", totals.commits),
            ("commits_failed", "Transactions that the database did not take.", totals.failed),
            ("commit_seconds", "Seconds that commits took.", totals.seconds),
            ("changes", "Changes within the transactions.", totals.changes),
            ("rows", "Rows that the engine's journal wrote.", totals.rows),
        ):
            yield CounterMetricFamily(f"skep_flow_{name}", text, value=value)

    async def _look_at_workers(self) -> None:
        c = tables.workers.c
        async with self._database.read() as connection:
            states = select(c.state, func.count()).group_by(c.state).order_by(c.state)
            self._workers = [(state, count) for state, count in await connection.execute(states)]
            first = select(func.min(c.expires) - now(connection)).where(c.state == "live")
            self._lease = (await connection.execute(first)).scalar()


def _summed(cells: Cells, place: int) -> Cells:
    """By that one of their labels alone."""
    groups: dict[tuple[str, ...], list[Latency]] = defaultdict(list)
    for key, cell in cells.items():
        groups[(key[place],)].append(cell)
    return {key: Latency.sum_of(parts) for key, parts in groups.items()}


def _counter(name: str, text: str, labels: list[str], samples: Iterable[tuple[object, ...]]) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for *values, count in samples:
        family.add_metric([str(value) for value in values], float(count))  # type: ignore[arg-type]
    return family


def _gauge(name: str, text: str, labels: list[str], samples: Iterable[tuple[str, int]]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for value, count in samples:
        family.add_metric([value], count)
    return family


def _histogram(name: str, text: str, cells: Cells, labels: Iterable[str] = ()) -> Metric:
    family = HistogramMetricFamily(name, text, labels=list(labels))
    for values, cell in cells.items():
        family.add_metric(list(values), cell.cumulated(), cell.total)
    return family


def _priority(number: int) -> str:
    return Priority(number).name.lower()
