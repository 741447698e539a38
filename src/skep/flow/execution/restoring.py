"""Takes over what an earlier process recorded of a run."""

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import msgspec

from skep.flow.definition.expressions import evaluate
from skep.flow.definition.plan import Approval, PlannedStep
from skep.flow.definition.registry import Bound
from skep.flow.execution.execution import FINISHED, SETTLED, Execution
from skep.flow.execution.fanout import FanOut, Scope
from skep.flow.runs import RunState, StepRow, StepState, StoredRun

_ITEM = re.compile(r"([^\[]*)\[(\d+)\](.*)")
_GONE_WRONG = SETTLED | {StepState.FAILED, StepState.UNDOING}
Rows = Mapping[str, StepRow]


def restore(execution: Execution, bound: Bound, stored: StoredRun) -> list[Scope]:
    """Fill an execution from the rows of steps; answers the items of fan-outs that are to be undone.

    Raises:
        LookupError, ValueError, msgspec.DecodeError: the rows do not fit the plan.
    """
    rows = {name: row for name, row in stored.steps.items() if row.state is not StepState.PENDING}
    restoring = _Restoring(execution, bound, forward=not stored.row.cause)
    restoring.steps({name: row for name, row in rows.items() if "[" not in name}, execution.graph.index)
    restoring.fan_outs(rows, execution.graph.index)
    if stored.row.started is not None and stored.row.state is not RunState.PENDING:
        restoring.imply_starts()
    return restoring.dropped


class _Restoring:
    def __init__(self, execution: Execution, bound: Bound, *, forward: bool) -> None:
        self.execution = execution
        self.bound = bound
        self.forward = forward
        self.dropped: list[Scope] = []
        self.given_up: set[Scope] = set()

    def steps(self, rows: Rows, index_of: Mapping[str, int]) -> None:
        for name, row in rows.items():
            index = index_of[name]
            self.execution.rows[index] = row
            if row.state in FINISHED:
                self.execution.complete(index, self._result(self.execution.planned(index), row))

    def fan_outs(self, rows: Rows, index_of: Mapping[str, int]) -> bool:
        """Open those that had been opened, and restore the steps of their items; answers whether an item has
        failed that is not given up, so that what is around it has."""
        items: dict[str, dict[int, dict[str, StepRow]]] = defaultdict(lambda: defaultdict(dict))
        for name, row in rows.items():
            match = _ITEM.fullmatch(name)
            if match:
                items[match[1]][int(match[2])][match[3]] = row
        wrong = False
        for name, index in index_of.items():
            found = self.execution.rows[index]
            if found is None and name in items:  # the run is tried again, and what its items did was kept
                found = self.execution.rows[index] = StepRow(attempts=1)
            opened = found is not None and found.state is not StepState.SKIPPED
            if self.execution.planned(index).each is not None and opened:
                wrong |= self._fan_out(index, items.get(name, {}))
        return wrong

    def _fan_out(self, index: int, items: Mapping[int, Rows]) -> bool:
        execution, planned = self.execution, self.execution.planned(index)
        assert planned.each is not None  # noqa: S101  (the caller has looked)
        values: Any = evaluate(planned.each.items, execution.lookup(index))
        execution.expand(index, list(values))
        fanout = execution.fanouts[index]
        execution.open_first(fanout, self._opened(fanout, items))
        undone = execution.row(index).state in SETTLED  # then so are items that had not failed
        number, wrong = 0, False
        while number < len(fanout.scopes):  # more of them open as the first are found to have ended
            wrong |= self._item(fanout.scopes[number], items.get(number, {}), judge=not undone)
            number += 1
        return wrong

    def _opened(self, fanout: FanOut, items: Mapping[int, Rows]) -> int:
        """How many items may have been opened.  On the way back those that are undone have ended too, so that
        some more than the last that left a row may have been under way."""
        parallel = fanout.body.each.parallel or 0
        return max(items, default=-1) + 1 + (0 if self.forward else parallel)

    def _item(self, scope: Scope, rows: Rows, *, judge: bool) -> bool:
        """Answers whether it has failed and is not given up."""
        body = scope.fanout.body
        index_of = {suffix: scope.base + position for position, suffix in enumerate(body.suffixes)}
        own = {name: row for name, row in rows.items() if name in index_of}
        self.steps(own, index_of)
        wrong = self.fan_outs(rows, index_of) or any(map(_has_gone_wrong, own.values()))
        if not (wrong and self.forward and judge):
            return False
        if scope.fanout.failed == scope.fanout.tolerated:
            return True
        self._drop(scope)
        return False

    def _drop(self, scope: Scope) -> None:
        """The item had failed.  If it is undone already the next one may have been opened since."""
        scope.dropped = True
        scope.fanout.failed += 1
        if self._was_touched(scope):
            self.dropped.append(scope)
        else:
            self.given_up.add(scope)
            self.execution.give_up(scope)

    def imply_starts(self) -> None:
        """A step whose predecessors had all ended may have been called, though nothing was recorded of it."""
        for index in self.execution.begin():
            planned = self.execution.planned(index)
            scope = self.execution.scope(index)
            if scope in self.given_up:
                continue
            if planned.use and planned.each is None and self.bound.code(planned).kind == "idempotent":
                self.execution.rows[index] = StepRow(state=StepState.RUNNING, attempts=1)

    def _was_touched(self, scope: Scope) -> bool:
        """Something of the item is not settled yet."""
        rows = (self.execution.rows[index] for index in scope.nodes())
        return any(row is not None and row.state not in SETTLED for row in rows)

    def _result(self, planned: PlannedStep, row: StepRow) -> object:
        if row.result is None or row.state is StepState.SKIPPED:
            return None
        if planned.each is not None:
            return msgspec.json.decode(row.result)
        if planned.wait is None:
            return self.bound.code(planned).decode(row.result)
        if planned.wait.kind == "approval":
            return msgspec.json.decode(row.result, type=Approval)
        return self.bound.signal_decoder(planned)(row.result) if planned.wait.kind == "signal" else None


def _has_gone_wrong(row: StepRow) -> bool:
    return row.state in _GONE_WRONG or row.undo_attempts > 0
