"""What can go wrong in the engine itself; errors of steps are recorded with their run instead."""

from collections.abc import Sequence
from dataclasses import dataclass

from skep.documents import Position


class FlowFault(Exception):
    """The flow engine cannot do this."""

    @property
    def message(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Problem:
    """One fault of a flow document; prints as `app.yaml:7: step start: there is no step 'x'`."""

    position: Position
    step: str
    reason: str

    def __str__(self) -> str:
        return (
            f"{self.position}: step {self.step}: {self.reason}"
            if self.step
            else f"{self.position}: {self.reason}"
        )


class FlowError(FlowFault, ValueError):
    """A flow document or a step is wrong as written; `problems` holds every fault found, in file order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda p: (p.position.file, p.position.line)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class StepError(FlowFault, ValueError):
    """A step's code cannot be registered as it is written."""


class InputError(FlowFault, ValueError):
    """The input of a run does not fit the flow's types."""


class UnknownFlow(FlowFault, LookupError):
    """No flow of that name is registered."""


class UnknownRun(FlowFault, LookupError):
    """There is no such run."""


class PlaceGone(FlowFault, LookupError):
    """Where a step is routed to is no more, and never will be: what was done there is undone by that."""


class WrongState(FlowFault):
    """The run or the step is not in a state in which this can be done."""


class Unloadable(FlowFault):
    """The definition, a step or a type of a stored run no longer exists."""


class CommitFailed(FlowFault):
    """The database did not take the transaction; none of its changes happened, unless that is `in_doubt`."""

    in_doubt = False
    """The connection broke between the commit and its answer."""
    away_for = 0.0
    """Seconds since the database was first seen not to answer."""

    @classmethod
    def of(cls, message: str, *, in_doubt: bool = False, away_for: float = 0.0) -> "CommitFailed":
        failure = cls(message)
        failure.in_doubt = in_doubt
        failure.away_for = away_for
        return failure


class Fenced(FlowFault):
    """This worker is held for dead: its runs belong to others now, and nothing that it commits counts."""


class CodeLost(FlowFault):
    """The process that ran the code of a step is gone, and nobody knows what became of the call."""
