"""One run's graph in memory: which steps may start, and which may be undone.

Nothing here does I/O.  Every step knows how many of those it waits for are left, so that a completion costs
no more than the number of its successors.
"""

from collections.abc import Mapping

from skep.flow.definition.expressions import INPUT, Reference, follow
from skep.flow.definition.graph import Graph
from skep.flow.runs import StepRow, StepState

FINISHED = frozenset({StepState.SUCCEEDED, StepState.SKIPPED})
SETTLED = frozenset({StepState.UNDONE, StepState.KEPT})


class Execution:
    """Forward: `begin`, then `complete` for each step, until `finished`.  Back: `begin_undo`, `undone`."""

    def __init__(self, graph: Graph, values: Mapping[str, object]) -> None:
        self.graph = graph
        self.values = values
        self.rows: list[StepRow | None] = [None] * len(graph)
        self.results: dict[int, object] = {}
        self.active: set[int] = set()
        """Steps that are going forward now: they must end before anything is undone."""
        self.undo_begun = False
        self._unmet = list(graph.counts)
        self._left = len(graph)
        self._blockers: dict[int, int] = {}

    def restore(self, rows: Mapping[str, StepRow], results: Mapping[int, object]) -> None:
        """Take over what an earlier process recorded, with the results of the steps that had succeeded."""
        for name, row in rows.items():
            index = self.graph.index[name]
            self.rows[index] = row
            if row.state in FINISHED:
                self.complete(index, results.get(index))

    def row(self, index: int) -> StepRow:
        row = self.rows[index]
        if row is None:
            row = self.rows[index] = StepRow()
        return row

    def begin(self) -> list[int]:
        """The steps that wait for nothing and were never started."""
        return [index for index, unmet in enumerate(self._unmet) if unmet == 0 and self.rows[index] is None]

    def complete(self, index: int, result: object) -> list[int]:
        """Record a result; answers the steps that may start now."""
        self.results[index] = result
        self._left -= 1
        ready = []
        for successor in self.graph.successors[index]:
            self._unmet[successor] -= 1
            if self._unmet[successor] == 0:
                ready.append(successor)
        return ready

    @property
    def finished(self) -> bool:
        return self._left == 0

    def lookup(self, reference: Reference) -> object:
        """The value of a reference; its source must have completed."""
        if reference.source == INPUT:
            name, *path = reference.path
            return follow(self.values[name], tuple(path))
        return follow(self.results[self.graph.index[reference.source]], reference.path)

    def begin_undo(self) -> list[int]:
        """Every step that was ever started is to be undone; answers those nothing started depends on."""
        self.undo_begun = True
        touched = [
            index for index, row in enumerate(self.rows) if row is not None and row.state not in SETTLED
        ]
        self._blockers = dict.fromkeys(touched, 0)
        for index in touched:
            for before in self.graph.after[index]:
                if before in self._blockers:
                    self._blockers[before] += 1
        return [index for index in touched if self._blockers[index] == 0]

    def undone(self, index: int) -> list[int]:
        """The step is settled; answers those that may be undone now."""
        del self._blockers[index]
        ready = []
        for before in self.graph.after[index]:
            if before in self._blockers:
                self._blockers[before] -= 1
                if self._blockers[before] == 0:
                    ready.append(before)
        return ready

    @property
    def all_undone(self) -> bool:
        return self.undo_begun and not self._blockers
