"""Makes new runs of flows, and unfinished runs out of what the tables say."""

import secrets
import threading
import time
from collections.abc import Mapping

import msgspec

from skep.flow.definition import hints
from skep.flow.definition.expressions import INPUT, Reference, evaluate, follow
from skep.flow.definition.graph import Graph
from skep.flow.definition.hints import Hint, describe
from skep.flow.definition.plan import Flow, Plan
from skep.flow.definition.registry import Bound, Registry
from skep.flow.errors import InputError, Unloadable
from skep.flow.execution.active import ActiveRun
from skep.flow.execution.attempt import message_of
from skep.flow.execution.execution import FINISHED, Execution
from skep.flow.runs import Claim, RunState, StoredRun


class RunIds:
    """Ids that sort by age: 12 hexadecimal digits of milliseconds since 1970, 4 of a count, 8 random ones."""

    def __init__(self) -> None:
        self._last = 0
        self._mutex = threading.Lock()

    def __call__(self) -> str:
        with self._mutex:
            self._last = max(self._last + 1, (time.time_ns() // 1_000_000) << 16)
            return f"{self._last:016x}{secrets.token_hex(4)}"


def check_input(flow: str, types: Mapping[str, Hint], given: Mapping[str, object]) -> dict[str, object]:
    """The input as the flow's types; what may be None may be left out.

    Raises:
        InputError: names every input that is missing, unknown or of another type.
    """
    wrong = [f"there is no input {name!r}" for name in given if name not in types]
    values: dict[str, object] = {}
    for name, hint in types.items():
        if name not in given and not hints.fits(None, hint):
            wrong.append(f"input {name!r} ({describe(hint)}) is missing")
            continue
        try:
            values[name] = msgspec.convert(msgspec.to_builtins(given.get(name)), hint)
        except (msgspec.ValidationError, TypeError) as error:
            wrong.append(f"input {name!r} must be {describe(hint)}: {error}")
    if wrong:
        raise InputError(f"flow {flow}: {'; '.join(wrong)}")
    return values


def locks_of(plan: Plan, values: Mapping[str, object]) -> tuple[Claim, ...]:
    """The keys of the run's locks, sorted."""

    def lookup(reference: Reference) -> object:
        if reference.source != INPUT:
            raise InputError(f"flow {plan.flow}: a lock refers to {reference}")
        name, *path = reference.path
        return follow(values[name], tuple(path))

    return tuple(map(Claim, sorted({str(evaluate(lock, lookup)) for lock in plan.locks})))


class Loader:
    """Plans joined with code, kept by hash while the engine is open."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._bound: dict[str, Bound] = {}

    def bind(self, flow: Flow) -> Bound:
        if flow.hash not in self._bound:
            self._bound[flow.hash] = self._registry.bind(flow.plan)
        return self._bound[flow.hash]

    def load(self, stored: StoredRun) -> ActiveRun:
        """A run to go on with; if it cannot be loaded, one that needs an operator and says why."""
        try:
            return self._load(stored)
        except Unloadable as error:
            nothing = Execution(Graph(Plan(stored.row.flow, {}, ())), {})
            stored.row.state, stored.row.error = RunState.NEEDS_OPERATOR, str(error)
            return ActiveRun(stored.row, None, nothing, sequence=stored.sequence)

    def _load(self, stored: StoredRun) -> ActiveRun:
        row = stored.row
        if row.definition not in self._bound:
            self._bound[row.definition] = self._registry.load(stored.content)
        bound = self._bound[row.definition]
        try:
            values = check_input(row.flow, bound.types, msgspec.json.decode(row.input))
            execution = Execution(bound.graph, values)
            execution.restore(stored.steps, self._results(bound, stored))
        except (InputError, msgspec.DecodeError, KeyError) as error:
            raise Unloadable(
                f"what the run has stored does not fit today's code: {message_of(error)}"
            ) from error
        return ActiveRun(row, bound, execution, sequence=stored.sequence)

    def _results(self, bound: Bound, stored: StoredRun) -> dict[int, object]:
        return {
            (index := bound.graph.index[name]): bound.codes[index].decode(row.result)
            for name, row in stored.steps.items()
            if row.state in FINISHED and row.result is not None
        }
