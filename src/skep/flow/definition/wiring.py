"""From a draft to a flow: names are resolved, types compared, sub-flows inlined, steps put in order.

All faults of a document are collected, so that a person mends them in one go.
"""

import difflib
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from types import MappingProxyType

import msgspec

from skep.documents import Path
from skep.flow.definition import hints
from skep.flow.definition.catalogue import Catalogue, Code
from skep.flow.definition.checking import check, type_of
from skep.flow.definition.draft import Draft
from skep.flow.definition.draft_steps import DraftStep
from skep.flow.definition.expressions import INPUT, Expression, references
from skep.flow.definition.hints import Hint
from skep.flow.definition.inlining import Inlining, TooLarge
from skep.flow.definition.plan import Flow, Plan
from skep.flow.definition.shapes import MOST_PROBLEMS, problem_at
from skep.flow.definition.sources import Sources
from skep.flow.definition.step_checks import StepChecks
from skep.flow.definition.step_types import StepTypes
from skep.flow.errors import FlowError, Problem

DEEPEST_FLOW = 50
"""Sub-flows within sub-flows."""
_MOST_GUESSES = 20


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
        self.codes: dict[str, Code] = {}
        self.flows: dict[str, Flow] = {}
        self.input = {name: self._type(text, ("input", name)) for name, text in draft.input.items()}
        for step in draft.steps.values():
            self._resolve(step)
        carried = {
            step.name: self._type(step.carries, ("steps", step.name, "as"))
            for step in draft.steps.values()
            if step.wait == "signal"
        }
        types = StepTypes(self.codes, self.flows, carried)
        self.sources = Sources(types.sources(self.input, draft.steps), self.wrong)

    def wrong(self, path: Path, reason: str) -> None:
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(problem_at(self.draft.document, path, reason))

    def flow(self) -> Flow | None:
        checks = StepChecks(self.draft, self.sources, self.codes, self.flows)
        for step in self.draft.steps.values():
            checks.step(step)
        self._check_run()
        outputs = {
            name: type_of(value, self.sources, ("output", name)) for name, value in self.draft.output.items()
        }
        order = self._order()
        if order is None or self.problems:
            return None
        depth = 1 + max((flow.depth for flow in self.flows.values()), default=-1)
        if depth > DEEPEST_FLOW:
            self.wrong(("flow",), f"sub-flows are nested deeper than {DEEPEST_FLOW} levels")
            return None
        plan = self._plan(order)
        if plan is None:
            return None
        types = MappingProxyType(self.input)
        return Flow(plan, self.draft.document.file, types, MappingProxyType(outputs), depth)

    # names

    def _type(self, text: str, path: Path) -> Hint:
        try:
            hint = hints.read(text, self.catalogue.types)
            msgspec.json.Decoder(hint)
        except ValueError as error:
            self.wrong(path, str(error))
            return object
        except TypeError as error:
            self.wrong(path, f"{text!r} cannot be told from JSON: {error}")
            return object
        return hint

    def _resolve(self, step: DraftStep) -> None:
        path: Path = ("steps", step.name)
        if step.use:
            code = self.catalogue.steps.get(step.use)
            if code is None:
                self.wrong((*path, "use"), f"there is no step {step.use!r}{self._similar(step.use)}")
            else:
                self.codes[step.name] = code
        elif step.flow:
            try:
                self.flows[step.name] = self.catalogue.flow(step.flow)
            except LookupError as error:
                self.wrong((*path, "flow"), str(error))

    def _similar(self, name: str) -> str:
        if len(self.problems) > _MOST_GUESSES:
            return ""
        close = difflib.get_close_matches(name, self.catalogue.steps, n=1)
        return f"; did you mean {close[0]!r}?" if close else ""

    def _order(self) -> list[str] | None:
        """The step names, each after those it waits for."""
        names = self.draft.steps.keys()
        graph = {
            name: [*dict.fromkeys(before for before in _waits_for(step) if before in names)]
            for name, step in self.draft.steps.items()
        }
        try:
            return list(TopologicalSorter(graph).static_order())
        except CycleError as error:
            cycle = list(reversed(error.args[1]))
            self.wrong(("steps", cycle[0]), f"waits for itself: {' → '.join(cycle)}")
            return None

    # the run as a whole

    def _check_run(self) -> None:
        for index, lock in enumerate(self.draft.locks):
            self._check_before(lock, str, ("lock", index), "a lock is taken")
        for limit, key in zip(self.draft.limits, self.draft.limit_keys, strict=True):
            self._check_before(limit.key, str, ("limit", key), "a limit is counted")
        if self.draft.priority is not None:
            self._check_before(self.draft.priority, str | int, ("priority",), "the priority is needed")

    def _check_before(self, value: Expression, wanted: Hint, path: Path, what: str) -> None:
        check(value, wanted, self.sources, path, what.rpartition(" is ")[0])
        if any(reference.source != INPUT for reference in references(value)):
            self.wrong(path, f"{what} before the first step: it can refer to $input only")

    # plan

    def _plan(self, order: Iterable[str]) -> Plan | None:
        inlining = Inlining(self.catalogue.bundle)
        for name in order:
            step = self.draft.steps[name]
            try:
                if step.flow:
                    inlining.flow(step, self.flows[name])
                else:
                    inlining.step(step, self.codes.get(name))
            except TooLarge as error:
                self.wrong(("steps", name), f"with its sub-flows the flow has more than {error}")
                return None
            except ValueError as error:
                self.wrong(("steps", name), str(error))
                return None
        return Plan(
            flow=self.draft.name,
            input=dict(self.draft.input),
            steps=tuple(inlining.steps),
            locks=(*self.draft.locks, *inlining.locks),
            output=self._outputs(inlining),
            limits=(*self.draft.limits, *inlining.limits),
            timeout=self.draft.timeout,
            priority=self.draft.priority,
            on_failure=self.draft.on_failure,
            bundle=self.catalogue.bundle,
        )

    def _outputs(self, inlining: Inlining) -> dict[str, Expression]:
        outputs: dict[str, Expression] = {}
        for name, value in self.draft.output.items():
            try:
                outputs[name] = inlining.resolve(value)
            except ValueError as error:
                self.wrong(("output", name), str(error))
        return outputs


def _waits_for(step: DraftStep) -> Iterable[str]:
    yield from step.after
    for value in step.expressions():
        yield from (reference.source for reference in references(value))
