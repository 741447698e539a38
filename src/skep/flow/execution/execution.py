"""One run's graph in memory: which steps may start now, and what their references mean.

Nothing here does I/O.  Every step knows how many of those it waits for are left, so that a completion costs
no more than the number of its successors.  Nodes are numbered: first those of the plan, then those that
fan-outs add while the run goes on.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import msgspec

from skep.flow.definition.expressions import INDEX, INPUT, ITEM, Reference, evaluate, follow
from skep.flow.definition.graph import Graph
from skep.flow.definition.plan import PlannedStep
from skep.flow.execution.fanout import Body, FanOut, Scope
from skep.flow.execution.rollback import Rollback
from skep.flow.runs import StepRow, StepState

FINISHED = frozenset({StepState.SUCCEEDED, StepState.SKIPPED})
SETTLED = frozenset({StepState.UNDONE, StepState.KEPT})


class Execution:
    """Forward: `begin`, then `complete` for each step, until `finished`.  Back: `begin_undo`."""

    def __init__(self, graph: Graph, values: Mapping[str, object]) -> None:
        self.graph = graph
        self.values = values
        self.rows: list[StepRow | None] = [None] * len(graph)
        self.results: dict[int, object] = {}
        self.active: set[int] = set()
        """Steps that are going forward now: they must end before anything is undone."""
        self.fanouts: dict[int, FanOut] = {}
        self.joined: list[int] = []
        """Fan-outs whose last item has just ended: to be completed with `joint`."""
        self.rollback: Rollback | None = None
        self.unwinding: dict[Scope, Rollback] = {}
        """Items that have failed and are undone while the run goes on."""
        self.size = len(graph)
        """How many steps it has come to, those of items that are not open yet included."""
        self._static = len(graph)
        self._unmet = list(graph.counts)
        self._left = len(graph)
        self._scopes: list[Scope] = []

    # nodes

    def row(self, index: int) -> StepRow:
        row = self.rows[index]
        if row is None:
            row = self.rows[index] = StepRow()
        return row

    def planned(self, index: int) -> PlannedStep:
        if index < self._static:
            return self.graph.plan.steps[index]
        scope = self._scopes[index - self._static]
        return scope.fanout.body.steps[index - scope.base]

    def scope(self, index: int) -> Scope | None:
        """The item that the step belongs to, if any."""
        return None if index < self._static else self._scopes[index - self._static]

    def name(self, index: int) -> str:
        if index < self._static:
            return self.graph.names[index]
        scope = self._scopes[index - self._static]
        prefix = self.name(scope.fanout.node)
        return f"{prefix}[{scope.number}]{scope.fanout.body.suffixes[index - scope.base]}"

    def find(self, name: str) -> int | None:
        """The index of a step by its name, also within fan-outs."""
        top, *items = name.split("[")
        index = self.graph.index.get(top)
        for item in items:
            number, _, suffix = item.partition("]")
            fanout = None if index is None else self.fanouts.get(index)
            if fanout is None or not number.isdecimal() or int(number) >= len(fanout.scopes):
                return None
            position = fanout.body.positions.get(suffix)
            index = None if position is None else fanout.scopes[int(number)].base + position
        return index

    def __len__(self) -> int:
        return len(self.rows)

    # forward

    def begin(self) -> list[int]:
        """The steps that wait for nothing and were never started."""
        return [index for index, unmet in enumerate(self._unmet) if unmet == 0 and self.rows[index] is None]

    def complete(self, index: int, result: object) -> list[int]:
        """Record a result; answers the steps that may start now."""
        self.results[index] = result
        unmet = self._unmet
        ready = []
        if index < self._static:
            self._left -= 1
            for successor in self.graph.successors[index]:
                unmet[successor] -= 1
                if unmet[successor] == 0:
                    ready.append(successor)
            return ready
        scope = self._scopes[index - self._static]
        base = scope.base
        for position in scope.fanout.body.successors[index - base]:
            unmet[base + position] -= 1
            if unmet[base + position] == 0:
                ready.append(base + position)
        scope.left -= 1
        if scope.left == 0:
            value = evaluate(scope.fanout.body.each.result, partial(self._look_in, scope))
            return [*ready, *self._item_ended(scope, value)]
        return ready

    @property
    def finished(self) -> bool:
        return self._left == 0

    def waits_for(self, index: int) -> list[int]:
        """Those of its predecessors that have not ended."""
        return [before for before in self.siblings(index) if before not in self.results]

    def siblings(self, index: int) -> Sequence[int]:
        """The steps that its plan names as those it waits for, of the same item."""
        if index < self._static:
            return self.graph.after[index]
        scope = self._scopes[index - self._static]
        return [scope.base + position for position in self.planned(index).after]

    def lookup(self, index: int) -> Callable[[Reference], object]:
        """What answers the references of this step; their sources must have completed."""
        if index < self._static:
            return self.look
        return partial(self._look_in, self._scopes[index - self._static])

    def output(self) -> bytes:
        """The output of a run that has succeeded, as JSON."""
        output = self.graph.plan.output
        return msgspec.json.encode({name: evaluate(value, self.look) for name, value in output.items()})

    def look(self, reference: Reference) -> object:
        if reference.source == INPUT:
            name, *path = reference.path
            return follow(self.values[name], tuple(path))
        return follow(self.results[self.graph.index[reference.source]], reference.path)

    def _look_in(self, scope: Scope, reference: Reference) -> object:
        source = reference.source
        if source in (ITEM, INDEX):
            around = scope
            for _ in range(reference.up):
                around = around.parent or around
            return follow(around.item, reference.path) if source == ITEM else around.number
        within: Scope | None = scope
        while within is not None:
            position = within.fanout.body.index.get(source)
            if position is not None:
                return follow(self.results[within.base + position], reference.path)
            within = within.parent
        return self.look(reference)

    # fan-outs

    def expand(self, index: int, items: Sequence[object], slice: int | None = None) -> list[int]:  # noqa: A002
        """Begin a fan-out over the items; answers the steps that may start now.

        With a `slice` only so many items are opened for now, and `widen` opens as many more.
        """
        planned, scope = self.planned(index), self.scope(index)
        assert planned.each is not None  # noqa: S101  (the caller has looked)
        body = self.graph.bodies.get(planned.name)
        if body is None:
            body = self.graph.bodies[planned.name] = Body(planned.name, planned.each)
        fanout = self.fanouts[index] = FanOut(index, scope, body, items)
        if slice is not None:
            fanout.narrow(slice)
        self.size += len(items) * len(body.steps)
        if scope is not None:
            scope.inner = [*(scope.inner or ()), fanout]
        if not items and index not in self.results:
            self.joined.append(index)
        return self._open_items(fanout)

    def widen(self, index: int, slice: int) -> list[int]:  # noqa: A002
        """Open more items of a fan-out that was not opened at once; answers the steps that may start now."""
        fanout = self.fanouts[index]
        fanout.narrow(fanout.width + slice)
        return self._open_items(fanout)

    def joint(self, index: int) -> list[object]:
        """The result of a fan-out: one value for each item, None for those that failed."""
        return self.fanouts[index].results

    def tolerate(self, index: int) -> Scope | None:
        """The item that may fail with this step, if a fan-out around it allows one more."""
        scope = self.scope(index)
        while scope is not None and not scope.dropped:
            if scope.fanout.failed < scope.fanout.tolerated:
                scope.fanout.failed += 1
                scope.dropped = True
                return scope
            scope = scope.parent
        return scope

    def dropped(self, index: int) -> Scope | None:
        """The outermost item around the step that has failed and is given up."""
        found, scope = None, self.scope(index)
        while scope is not None:
            found = scope if scope.dropped else found
            scope = scope.parent
        return found

    def unwind(self, scope: Scope) -> list[int]:
        """Undo what the item did; answers the steps to begin with."""
        rollback = self.unwinding[scope] = Rollback(self._touched(scope.nodes()), self.before)
        scope.unwinding = True
        return rollback.ready()

    def give_up(self, scope: Scope) -> list[int]:
        """The item is undone; answers the steps of other items that may start now."""
        self.unwinding.pop(scope, None)
        scope.unwinding = False
        return self._item_ended(scope, None)

    def is_quiet(self, scope: Scope) -> bool:
        """Nothing of the item is under way, forward or back."""
        if any(inner.unwinding for inner in scope.within()):
            return False
        return self.active.isdisjoint(scope.nodes())

    def open_first(self, fanout: FanOut, count: int) -> None:
        """Open the first items, as many as had been before a restart, whether others have ended or not."""
        while len(fanout.scopes) < min(count, len(fanout.items)):
            self._open_item(fanout)

    def _open_items(self, fanout: FanOut) -> list[int]:
        ready: list[int] = []
        while fanout.has_room:
            ready += self._open_item(fanout)
        return ready

    def _open_item(self, fanout: FanOut) -> list[int]:
        number, base, body = len(fanout.scopes), len(self.rows), fanout.body
        scope = Scope(fanout, number, fanout.items[number], base)
        fanout.scopes.append(scope)
        fanout.open += 1
        self._scopes.extend([scope] * len(body.steps))
        self.rows.extend([None] * len(body.steps))
        self._unmet.extend(body.counts)
        return [base + position for position, count in enumerate(body.counts) if count == 0]

    def _item_ended(self, scope: Scope, value: object) -> list[int]:
        fanout = scope.fanout
        fanout.results[scope.number] = value
        fanout.left -= 1
        fanout.open -= 1
        if len(fanout.body.steps) == 1:
            self.results.pop(scope.base, None)  # nothing within the item refers to it, and it is kept above
        if fanout.left == 0 and fanout.node not in self.results:
            self.joined.append(fanout.node)
        return self._open_items(fanout)

    # back

    def before(self, index: int) -> Iterable[int]:
        """What must be undone after it: all that it depended on, with the items of a fan-out before it."""
        yield from self.siblings(index)
        scope = self.scope(index)
        while scope is not None:
            yield from self.siblings(scope.fanout.node)
            scope = scope.parent
        fanout = self.fanouts.get(index)
        if fanout is not None:
            yield from fanout.nodes()

    @property
    def untouched(self) -> bool:
        """Nothing was ever started, or all of it is undone."""
        return not self._touched(range(len(self.rows)))

    def begin_undo(self) -> list[int]:
        """Every step that was ever started is to be undone; answers those to begin with."""
        self.rollback = Rollback(self._touched(range(len(self.rows))), self.before)
        return self.rollback.ready()

    def settled(self, index: int) -> tuple[Sequence[int], Scope | None]:
        """The step is undone or left; answers what may be undone now, and the item that is done with."""
        if self.rollback is not None:
            return self.rollback.settled(index), None
        scope = self.scope(index)
        while scope is not None:
            rollback = self.unwinding.get(scope)
            if rollback is not None and index in rollback:
                ready = rollback.settled(index)
                return ready, scope if rollback.done else None
            scope = scope.parent
        return (), None

    @property
    def all_undone(self) -> bool:
        return self.rollback is not None and self.rollback.done

    def _touched(self, nodes: Iterable[int]) -> list[int]:
        rows = self.rows
        return [index for index in nodes if (row := rows[index]) is not None and row.state not in SETTLED]
