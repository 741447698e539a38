"""Flow documents as they are written: their shape is checked here, names and types by `wiring`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from skep.documents import Document, DocumentError, Limits, load
from skep.flow.definition.draft_steps import DraftStep, StepShapes
from skep.flow.definition.durations import priority_of, seconds_of
from skep.flow.definition.expressions import Constant, Expression
from skep.flow.definition.plan import Limit, OnFailure
from skep.flow.errors import FlowError, Problem

LARGEST_DOCUMENT = Limits(bytes=32 * 1024 * 1024, depth=32, nodes=2_000_000)
"""Room for 100,000 steps written one by one."""
KEYS = frozenset(
    {
        "flow",
        "description",
        "input",
        "priority",
        "timeout",
        "on_failure",
        "lock",
        "limit",
        "steps",
        "output",
    }
)
_ON_FAILURE: Mapping[str, OnFailure] = {word: word for word in get_args(OnFailure)}


@dataclass(frozen=True)
class Draft:
    """A document whose shape is right; nothing is known yet about the names and types in it."""

    name: str
    document: Document
    input: Mapping[str, str]
    locks: tuple[Expression, ...]
    limits: tuple[Limit, ...]
    steps: Mapping[str, DraftStep]
    output: Mapping[str, Expression]
    timeout: float | None
    priority: Expression | None
    on_failure: OnFailure

    @property
    def limit_keys(self) -> list[str]:
        """Those of the run as a whole, as written."""
        return list(self.document.data.get("limit") or {})


def draft(text: str, file: str) -> Draft:
    """Read a flow document.

    Raises:
        FlowError: no YAML, or not of the shape of a flow; names every fault.
    """
    try:
        document = load(text, file, LARGEST_DOCUMENT)
    except DocumentError as error:
        raise FlowError([Problem(error.position, "", error.reason)]) from error
    reader = _Reader(document)
    result = reader.flow()
    if reader.problems:
        raise FlowError(reader.problems)
    return result


class _Reader(StepShapes):
    def flow(self) -> Draft:
        root = self.mapping(self.document.data, ())
        self.known(root, KEYS, ())
        steps = self.mapping(root.get("steps"), ("steps",))
        inputs = self.mapping(root.get("input"), ("input",))
        locks = self.list(root.get("lock"), ("lock",))
        return Draft(
            name=self.text(root.get("flow"), ("flow",), "the document needs a name, 'flow: ...'"),
            document=self.document,
            input={
                key: self.text(value, ("input", key), "an input needs a type")
                for key, value in inputs.items()
            },
            locks=tuple(self.expression(lock, ("lock", index)) for index, lock in enumerate(locks)),
            limits=self._limits(root.get("limit")),
            steps={key: self.step(key, value) for key, value in steps.items()},
            output=self.expressions(root.get("output"), ("output",)),
            timeout=self.amount(seconds_of, root.get("timeout"), ("timeout",)),
            priority=self._priority(root.get("priority")),
            on_failure=self._on_failure(root),
        )

    def _limits(self, value: object) -> tuple[Limit, ...]:
        """At most so many runs at once; a rate of runs is for a schedule or a policy."""
        limits = self.mapping(value, ("limit",))
        counts = {
            key: self.count(most, ("limit", key), "'limit' is how many such runs at once")
            for key, most in limits.items()
        }
        return tuple(Limit(self.expression(key, ("limit", key)), count) for key, count in counts.items())

    def _priority(self, value: object) -> Expression | None:
        if value is None:
            return None
        expression = self.expression(value, ("priority",))
        if not isinstance(expression, Constant):
            return expression
        priority = self.amount(priority_of, expression.value, ("priority",))
        return None if priority is None else Constant(priority.name.lower())

    def _on_failure(self, root: Mapping[str, object]) -> OnFailure:
        word = self.one_of(
            root.get("on_failure", "undo"), _ON_FAILURE, ("on_failure",), "way to deal with failure"
        )
        return word or "undo"
