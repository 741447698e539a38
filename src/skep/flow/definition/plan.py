"""Plans: flows once checked and inlined.  Plain data without names of other flows.

A plan is stored with the runs that use it, so that they end as they began whatever the registry holds by
then.
"""

import gc
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Literal

import msgspec

from skep.flow.definition.expressions import Expression
from skep.flow.definition.hints import Hint

OnFailure = Literal["undo", "keep", "ask"]
"""What a run does when a step has failed for good: undo what was done, end as it is, or ask an operator."""

WaitKind = Literal["signal", "approval", "until", "for"]


class RetryPolicy(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """How often an error is forgiven; between tries up to `first` seconds, doubled each time up to `most`."""

    times: int = 0
    first: float = 0.2
    most: float = 30.0
    budget: float | None = None
    """Seconds from the first attempt, after which there is no other."""


class Approval(msgspec.Struct, frozen=True):
    """What a wait for approval yields.  One that was refused fails its step instead."""

    approved: bool
    by: str = ""
    comment: str = ""


class Wait(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What a waiting step waits for.

    signal: `value` is its name; approval: the question; until: RFC 3339 or seconds since 1970; for: seconds.
    """

    kind: WaitKind
    value: Expression
    type: str = "object"
    """Of what a signal carries, as written."""


class Limit(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A key the step counts against, with what the document allows where no policy says otherwise."""

    key: Expression
    concurrency: int | None = None
    rate: float | None = None
    """Per second."""
    burst: float | None = None


class Each(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A fan-out: `steps` once per item of a list; they refer to it as `$item`, to its number as `$index`.

    Within a fan-out of a fan-out, references with `up` mean the items further out.  `steps` are a plan of
    their own: their `after` are indexes among themselves.  `result` is what one item yields.  Up to
    `failures` items (or that share of them, if less than 1) may fail and yield null.
    """

    items: Expression
    steps: tuple["PlannedStep", ...]
    result: Expression
    parallel: int | None = None
    failures: float = 0


class PlannedStep(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One node.  It has code (`use`), or waits (`wait`), or fans out (`each`).

    `after`: the indexes of all steps it waits for, each smaller than its own.  `bundle`: the hash of the
    bundle whose code it is; "" is the program's own.
    """

    name: str
    use: str = ""
    arguments: dict[str, Expression] = {}
    after: tuple[int, ...] = ()
    on: Expression | None = None
    retry: RetryPolicy | None = None
    timeout: float | None = None
    bundle: str = ""
    when: Expression | None = None
    wait: Wait | None = None
    each: Each | None = None
    limits: tuple[Limit, ...] = ()
    priority: int | None = None


class Plan(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A checked flow in topological order, sub-flows inlined; `input` maps names to types as written."""

    flow: str
    input: dict[str, str]
    steps: tuple[PlannedStep, ...]
    locks: tuple[Expression, ...] = ()
    output: dict[str, Expression] = {}
    limits: tuple[Limit, ...] = ()
    """Held by a run from before its first step until its end, as locks are."""
    timeout: float | None = None
    """Seconds from the start of the run to its deadline."""
    priority: Expression | None = None
    """The name or number of one of the five."""
    on_failure: OnFailure = "undo"
    bundle: str = ""
    """Hash of the bundle that the document is part of, for the types of its input; "" is the program's."""


@dataclass(frozen=True)
class Flow:
    """A checked flow: its plan, and the types that its input takes and its output has.

    `depth`: of the sub-flows within, 0 if there are none.
    """

    plan: Plan
    file: str
    types: Mapping[str, Hint] = field(default_factory=lambda: MappingProxyType({}))
    outputs: Mapping[str, Hint] = field(default_factory=lambda: MappingProxyType({}))
    depth: int = 0

    @property
    def name(self) -> str:
        return self.plan.flow

    @cached_property
    def size(self) -> int:
        """How many steps it has, those within fan-outs included."""
        return sum(map(_size, self.plan.steps))

    @cached_property
    def content(self) -> bytes:
        """The plan as JSON, as it is stored with runs."""
        return msgspec.json.encode(self.plan, order="sorted")

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the content, in hexadecimal: its name in the store."""
        return hashlib.sha256(self.content).hexdigest()


LARGE = 10_000
"""Steps of a document that takes seconds to be checked."""


def compact(flow: Flow) -> Flow:
    """The same; a large one with its plan read anew from its stored form.

    What is left of checking a document lies scattered over the memory that checking took, and would keep most
    of it.  So all of that is given up first.
    """
    if len(flow.plan.steps) < LARGE:
        return flow
    content, frame = flow.content, replace(flow, plan=Plan(flow.name, {}, ()))
    del flow
    gc.collect()
    return replace(frame, plan=msgspec.json.decode(content, type=Plan))


def _size(step: PlannedStep) -> int:
    return 1 if step.each is None else 1 + sum(map(_size, step.each.steps))
