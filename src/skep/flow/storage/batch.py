"""What has changed since the journal wrote last."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from skep.flow.runs import RunRow, StepRow
from skep.flow.steps import RunId
from skep.flow.storage import statements, values
from skep.flow.storage.refusals import Unstorable
from skep.flow.storage.statements import Rows, Values


@dataclass(slots=True)
class Batch:
    """Of each row only its last state is written; events and actions keep their order."""

    created: list[RunRow] = field(default_factory=list)
    runs: dict[RunId, RunRow] = field(default_factory=dict)
    steps: dict[tuple[RunId, str], StepRow] = field(default_factory=dict)
    events: list[Values] = field(default_factory=list)
    taken: list[Values] = field(default_factory=list)
    replies: list[Values] = field(default_factory=list)
    blobs: dict[str, Values] = field(default_factory=dict)
    afterwards: list[Callable[[], None]] = field(default_factory=list)

    def before(self, other: "Batch") -> "Batch":
        """Both in one, this one first."""
        return Batch(
            self.created + other.created,
            self.runs | other.runs,
            self.steps | other.steps,
            self.events + other.events,
            self.taken + other.taken,
            self.replies + other.replies,
            self.blobs | other.blobs,
            self.afterwards + other.afterwards,
        )

    @property
    def is_small(self) -> bool:
        """At most one row for each table, and none that another one makes."""
        parts: tuple[Collection[object], ...] = (self.created, self.runs, self.steps, self.events)
        others: tuple[Collection[object], ...] = (self.taken, self.replies, self.blobs)
        if any(len(part) > 1 for part in parts + others):
            return False
        return not self.created or (len(self.created[0].labels) <= 1 and not self.runs)

    def rows(self) -> Rows:
        """The values of this moment: the rows go on changing.

        Raises:
            Unstorable: some of them are not even of their columns' types.
        """
        try:
            return self._rows()
        except Exception as error:
            raise Unstorable(f"cannot be stored: {error}") from error

    def _rows(self) -> Rows:
        return {
            statements.BLOB: list(self.blobs.values()),
            statements.NEW_RUN: [values.new_run(run) for run in self.created],
            statements.LABEL: values.labels(self.created),
            statements.RUN: [values.changed_run(run) for run in self.runs.values()],
            statements.STEP: [values.step(run, name, row) for (run, name), row in self.steps.items()],
            statements.EVENT: self.events,
            statements.REPLY: self.replies,
            statements.TAKEN: self.taken,
        }

    def shared(self) -> Iterator[Rows]:
        """What belongs to no run alone, row by row."""
        for blob in self.blobs.values():
            yield {statements.BLOB: [blob]}
        for reply in self.replies:
            yield {statements.REPLY: [reply]}

    def by_run(self) -> "dict[RunId, Batch]":
        """What is about each run, for itself."""
        parts: dict[RunId, Batch] = defaultdict(Batch)
        for row in self.created:
            parts[row.id].created.append(row)
        for run, row in self.runs.items():
            parts[run].runs[run] = row
        for key, step in self.steps.items():
            parts[key[0]].steps[key] = step
        for event in self.events:
            parts[event[0]].events.append(event)
        for taken in self.taken:
            parts[taken[1]].taken.append(taken)
        return dict(parts)
