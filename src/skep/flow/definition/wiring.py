"""From a draft to a flow: names are resolved, types compared, sub-flows inlined, steps put in order.

All faults of a document are collected, so that a person mends them in one go.
"""

import difflib
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from types import MappingProxyType

import msgspec

from skep.documents import Path
from skep.flow.definition import hints
from skep.flow.definition.catalogue import Catalogue, Code
from skep.flow.definition.draft import Draft, DraftStep
from skep.flow.definition.expressions import (
    INPUT,
    Constant,
    Expression,
    Fields,
    Items,
    Reference,
    Text,
    references,
)
from skep.flow.definition.hints import Hint, describe
from skep.flow.definition.inlining import Inlining
from skep.flow.definition.plan import Flow, Plan
from skep.flow.errors import FlowError, Problem

LARGEST_FLOW = 100_000
"""Steps of a flow after inlining: sub-flows that double themselves are refused before they cost anything."""


def wire(draft: Draft, catalogue: Catalogue) -> Flow:
    """Check a draft against the steps, types and flows of the catalogue.

    Raises:
        FlowError: names file, line, step and, where types differ, both.
    """
    wiring = _Wiring(draft, catalogue)
    flow = wiring.flow()
    if flow is None or wiring.problems:
        raise FlowError(wiring.problems)
    return flow


class _Wiring:
    def __init__(self, draft: Draft, catalogue: Catalogue) -> None:
        self.draft = draft
        self.catalogue = catalogue
        self.problems: list[Problem] = []
        self.types = self._input_types()
        self.codes: dict[str, Code] = {}
        self.flows: dict[str, Flow] = {}
        for step in draft.steps.values():
            self._resolve(step)

    def wrong(self, path: Path, reason: str) -> None:
        step = str(path[1]) if len(path) > 1 and path[0] == "steps" else ""
        self.problems.append(Problem(self.draft.document.where(path), step, reason))

    def flow(self) -> Flow | None:
        for step in self.draft.steps.values():
            self._check_step(step)
        for index, lock in enumerate(self.draft.locks):
            self._check_lock(lock, ("lock", index))
        outputs = {name: self._type(value, ("output", name)) for name, value in self.draft.output.items()}
        order = self._order()
        if order is None or self.problems:
            return None
        plan = self._plan(order)
        if plan is None:
            return None
        return Flow(plan, self.draft.document.file, MappingProxyType(self.types), MappingProxyType(outputs))

    # names

    def _input_types(self) -> dict[str, Hint]:
        types: dict[str, Hint] = {}
        for name, text in self.draft.input.items():
            try:
                types[name] = hints.read(text, self.catalogue.types)
            except ValueError as error:
                self.wrong(("input", name), str(error))
                types[name] = object
        return types

    def _resolve(self, step: DraftStep) -> None:
        path: Path = ("steps", step.name)
        if step.use:
            code = self.catalogue.steps.get(step.use)
            if code is None:
                self.wrong(
                    (*path, "use"), f"there is no step {step.use!r}{_similar(step.use, self.catalogue.steps)}"
                )
            else:
                self.codes[step.name] = code
        elif step.flow:
            try:
                self.flows[step.name] = self.catalogue.flow(step.flow)
            except LookupError as error:
                self.wrong((*path, "flow"), str(error))

    def _order(self) -> list[str] | None:
        """The step names, each after those it waits for."""
        names = self.draft.steps.keys()
        graph = {
            name: [*dict.fromkeys(ref for ref in _waits_for(step) if ref in names)]
            for name, step in self.draft.steps.items()
        }
        try:
            return list(TopologicalSorter(graph).static_order())
        except CycleError as error:
            cycle = list(reversed(error.args[1]))
            self.wrong(("steps", cycle[0]), f"waits for itself: {' → '.join(cycle)}")
            return None

    # types

    def _check_step(self, step: DraftStep) -> None:
        path: Path = ("steps", step.name)
        for index, name in enumerate(step.after):
            if name not in self.draft.steps:
                self.wrong((*path, "after", index), f"there is no step {name!r} in this flow")
        if step.on is not None:
            self._check(step.on, str, (*path, "on"), "on")
        code = self.codes.get(step.name)
        if code is not None:
            self._check_arguments(step, code.parameters, code.required, step.use)
            if step.retry and code.kind == "at-most-once":
                self.wrong((*path, "retry"), f"{step.use} is an at-most-once step: it cannot have 'retry'")
        elif step.name in self.flows:
            types = self.flows[step.name].types
            needed = frozenset(name for name, hint in types.items() if not hints.fits(None, hint))
            self._check_arguments(step, types, needed, step.flow)

    def _check_arguments(
        self, step: DraftStep, parameters: Mapping[str, Hint], required: frozenset[str], owner: str
    ) -> None:
        path: Path = ("steps", step.name, "with")
        for name, value in step.arguments.items():
            if name in parameters:
                self._check(value, parameters[name], (*path, name), f"parameter {name!r} of {owner}")
            else:
                known = ", ".join(parameters) or "none"
                self.wrong((*path, name), f"{owner} has no parameter {name!r}; it has {known}")
        for name in sorted(required - step.arguments.keys()):
            self.wrong(path, f"parameter {name!r} of {owner} is missing ({describe(parameters[name])})")

    def _check_lock(self, lock: Expression, path: Path) -> None:
        self._check(lock, str, path, "a lock")
        if any(reference.source != INPUT for reference in references(lock)):
            self.wrong(path, "a lock is taken before the first step: it can refer to $input only")

    def _check(self, value: Expression, wanted: Hint, path: Path, what: str) -> None:
        """Whether the expression gives what is wanted; looks into written lists and mappings."""
        match value:
            case Constant(constant):
                try:
                    msgspec.convert(constant, wanted)
                except msgspec.ValidationError as error:
                    self.wrong(path, f"{what} wants {describe(wanted)}, not {constant!r}: {error}")
            case Reference():
                given = self._reference_type(value, path)
                if given is not _UNKNOWN and not hints.fits(given, wanted):
                    self.wrong(path, f"{what} wants {describe(wanted)}, but {value} is {describe(given)}")
            case Text():
                self._check_text(value, path)
                if not any(hints.fits(str, hints.bare(member)) for member in hints.members(wanted)):
                    self.wrong(path, f"{what} wants {describe(wanted)}, but a text with references is str")
            case Items(items):
                self._check_items(items, wanted, path, what)
            case Fields(fields):
                self._check_fields(fields, wanted, path, what)

    def _check_text(self, text: Text, path: Path) -> None:
        for part in text.parts:
            if isinstance(part, Reference):
                hint = self._reference_type(part, path)
                if hint is not _UNKNOWN and not hints.is_embeddable(hint):
                    self.wrong(
                        path, f"only str and int can stand inside a text, but {part} is {describe(hint)}"
                    )

    def _check_items(self, items: tuple[Expression, ...], wanted: Hint, path: Path, what: str) -> None:
        element = hints.element(wanted)
        if element is None:
            self.wrong(path, f"{what} wants {describe(wanted)}, not a list")
            return
        for index, item in enumerate(items):
            self._check(item, element, (*path, index), f"item {index} of {what}")

    def _check_fields(self, fields: Mapping[str, Expression], wanted: Hint, path: Path, what: str) -> None:
        shape = hints.shape(wanted)
        if shape is None:
            self.wrong(path, f"{what} wants {describe(wanted)}, not a mapping")
            return
        for name, value in fields.items():
            if (hint := shape(name)) is None:
                self.wrong((*path, name), f"{describe(wanted)} has no field {name!r}")
            else:
                self._check(value, hint, (*path, name), f"field {name!r} of {what}")
        for member in hints.members(wanted):
            for name in sorted(hints.required(member) - fields.keys()):
                self.wrong(path, f"field {name!r} of {describe(wanted)} is missing")

    def _type(self, value: Expression, path: Path) -> Hint:
        """The type of an expression that may be anything: an output."""
        match value:
            case Reference():
                return self._reference_type(value, path)
            case Text():
                self._check_text(value, path)
                return str
            case Constant(constant):
                return type(constant)
            case _:
                for reference in references(value):
                    self._reference_type(reference, path)
                return list if isinstance(value, Items) else dict

    def _reference_type(self, reference: Reference, path: Path) -> Hint:
        found = self._source_type(reference, path)
        if found is None:
            return _UNKNOWN
        hint, rest, said = found
        for name in rest:
            fields = hints.fields(hint)
            if fields is None or name not in fields:
                known = f"; it has {', '.join(fields)}" if fields else ""
                self.wrong(path, f"{said} is {describe(hint)}, which has no field {name!r}{known}")
                return _UNKNOWN
            hint, said = fields[name], f"{said}.{name}"
        return hint

    def _source_type(self, reference: Reference, path: Path) -> tuple[Hint, tuple[str, ...], str] | None:
        """The type where a reference begins, the fields left to follow, and how that beginning is written."""
        source, fields = reference.source, reference.path
        if source in self.codes:
            return self.codes[source].returns, fields, f"${source}"
        named: Mapping[str, Hint] | None = None
        if source == INPUT:
            named = self.types
        elif source in self.flows:
            named = self.flows[source].outputs
        if named is None:
            if source not in self.draft.steps:
                self.wrong(path, f"{reference} refers to {source!r}, which is no step of this flow")
            return None
        if not fields or fields[0] not in named:
            what = "an input of the flow" if source == INPUT else f"an output of {source}"
            known = ", ".join(named) or "none"
            self.wrong(
                path,
                f"{reference} does not name {what}; it has {known}",
            )
            return None
        return named[fields[0]], fields[1:], f"${source}.{fields[0]}"

    # plan

    def _plan(self, order: Iterable[str]) -> Plan | None:
        inlining = Inlining()
        for name in order:
            step = self.draft.steps[name]
            try:
                if step.use:
                    inlining.step(step)
                else:
                    inlining.flow(step, self.flows[name])
            except ValueError as error:
                self.wrong(("steps", name), str(error))
                return None
            if len(inlining.steps) > LARGEST_FLOW:
                self.wrong(("steps", name), f"with its sub-flows the flow has more than {LARGEST_FLOW} steps")
                return None
        return Plan(
            flow=self.draft.name,
            input=dict(self.draft.input),
            steps=tuple(inlining.steps),
            locks=(*self.draft.locks, *inlining.locks),
            output={key: inlining.resolve(value) for key, value in self.draft.output.items()},
        )


class _Unknown:
    """The type of what could not be resolved: said once, not again wherever it is used."""


_UNKNOWN: Hint = _Unknown


def _waits_for(step: DraftStep) -> Iterable[str]:
    yield from step.after
    for value in (*step.arguments.values(), *([step.on] if step.on is not None else [])):
        yield from (reference.source for reference in references(value))


def _similar(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
