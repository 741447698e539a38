"""Plans joined with the code that carries them out."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from skep.flow.definition import hints
from skep.flow.definition.catalogue import Code
from skep.flow.definition.graph import Graph
from skep.flow.definition.hints import Hint
from skep.flow.definition.plan import Plan, PlannedStep
from skep.flow.errors import Unloadable

Decoder = Callable[[bytes], Any]


class Library(Protocol):
    """What binding asks a registry for; both raise Unloadable."""

    def code(self, bundle: str, use: str) -> Code: ...

    def types_of(self, bundle: str) -> Mapping[str, Hint]: ...


@dataclass(frozen=True)
class Bound:
    """`types` are those of the input."""

    graph: Graph
    types: Mapping[str, Hint]
    codes: Mapping[tuple[str, str], Code]
    """By bundle and name."""
    decoders: Mapping[tuple[str, str], Decoder]
    """Of what signals carry, by bundle and type as written."""

    def code(self, step: PlannedStep) -> Code:
        """Of a step that has code, also of one within a fan-out."""
        return self.codes[step.bundle, step.use]

    def signal_decoder(self, step: PlannedStep) -> Decoder:
        """Reads what the signal carries that this step waits for; raises msgspec.DecodeError."""
        return self.decoders[step.bundle, step.wait.type if step.wait else "object"]


def bind(plan: Plan, library: Library) -> Bound:
    """Join a plan with the code of the library.

    Raises:
        Unloadable: names every step and type that the plan needs and that no longer exists.
    """
    codes: dict[tuple[str, str], Code] = {}
    decoders: dict[tuple[str, str], Decoder] = {}
    missing: dict[str, None] = {}
    for step in every_step(plan.steps):
        key = (step.bundle, step.use)
        try:
            if step.use and key not in codes:
                codes[key] = library.code(*key)
            if step.wait is not None:
                decoders[step.bundle, step.wait.type] = _decoder(step, step.wait.type, library)
        except Unloadable as error:
            missing[str(error)] = None
    if missing:
        raise Unloadable(f"flow {plan.flow}: {'; '.join(sorted(missing))}")
    return Bound(Graph(plan), input_types(plan, library), codes, decoders)


def every_step(steps: tuple[PlannedStep, ...]) -> Iterator[PlannedStep]:
    """The steps, and those within their fan-outs."""
    for step in steps:
        yield step
        if step.each is not None:
            yield from every_step(step.each.steps)


def input_types(plan: Plan, library: Library) -> dict[str, Hint]:
    """Raises Unloadable: one of them no longer exists."""
    try:
        types = library.types_of(plan.bundle)
        return {name: hints.read(text, types) for name, text in plan.input.items()}
    except ValueError as error:
        raise Unloadable(f"flow {plan.flow}: {error}") from error


def read(content: bytes) -> Plan:
    """A plan as it was stored.  Raises Unloadable."""
    try:
        return msgspec.json.decode(content, type=Plan)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unloadable(f"the stored flow cannot be read: {error}") from error


def _decoder(step: PlannedStep, text: str, library: Library) -> Decoder:
    try:
        return msgspec.json.Decoder(hints.read(text, library.types_of(step.bundle))).decode
    except (ValueError, TypeError) as error:
        raise Unloadable(f"the type of a signal cannot be read: {error}") from error
