"""Checks of one drafted step: what it is given against what it takes."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from skep.documents import Path
from skep.flow.definition import hints
from skep.flow.definition.catalogue import Code
from skep.flow.definition.checking import check, type_of
from skep.flow.definition.comparisons import one_of
from skep.flow.definition.draft import Draft
from skep.flow.definition.draft_steps import WAITS_FOR, DraftEach, DraftStep
from skep.flow.definition.durations import seconds_of
from skep.flow.definition.expressions import INDEX, ITEM, Constant, Reference
from skep.flow.definition.hints import Hint, describe
from skep.flow.definition.plan import Flow, WaitKind
from skep.flow.definition.sources import UNKNOWN, Source, Sources
from skep.flow.definition.truth import certain_if, check_condition

_WANTED: Mapping[WaitKind, Hint] = {
    "signal": str,
    "approval": str,
    "for": str | int | float,
    "until": str | int | float,
}


class StepChecks:
    def __init__(
        self, draft: Draft, sources: Sources, codes: Mapping[str, Code], flows: Mapping[str, Flow]
    ) -> None:
        self.draft = draft
        self.sources = sources
        self.codes = codes
        self.flows = flows

    def step(self, step: DraftStep) -> None:
        """Note whatever is wrong with the step."""
        path: Path = ("steps", step.name)
        for index, name in enumerate(step.after):
            if name not in self.draft.steps:
                self.sources.wrong((*path, "after", index), f"there is no step {name!r} in this flow")
        inside = self._inside(step, path)
        if step.on is not None:
            check(step.on, str, inside, (*path, "on"), "on")
        for limit, place in zip(step.limits, self._limit_paths(step), strict=True):
            check(limit.key, str, inside, place, "a limit")
        if step.wait is not None:
            self._check_wait(step, step.wait, inside)
        elif step.name in self.codes:
            self._check_call(step, self.codes[step.name], inside)
        elif step.name in self.flows:
            self._check_sub_flow(step, self.flows[step.name], inside)

    def _inside(self, step: DraftStep, path: Path) -> Sources:
        """What references mean where the step is carried out: within its fan-out, if its condition holds."""
        inside = self.sources
        known = certain_if(step.when)
        if not step.is_chosen_per_item:
            inside = self._under(step, inside, path)
        if step.each is not None:
            item = self._item_type(step.each, inside, (*path, "each"))
            inside = inside.within({ITEM: Source(item), INDEX: Source(int)})
        if step.is_chosen_per_item:
            inside = self._under(step, inside, path)
        return inside.sure_of(known)

    def _under(self, step: DraftStep, sources: Sources, path: Path) -> Sources:
        if step.when is None:
            return sources
        check_condition(step.when, sources, (*path, "when"))
        return sources.sure_of(certain_if(step.when))

    def _item_type(self, each: DraftEach, sources: Sources, path: Path) -> Hint:
        given = type_of(each.items, sources, path)
        if given is UNKNOWN:
            return UNKNOWN
        elements = [_element(member) for member in hints.members(given)]
        if any(element is None for element in elements):
            sources.wrong(path, f"'each' wants a list, but this is {describe(given)}")
            return UNKNOWN
        return one_of(elements)

    def _check_call(self, step: DraftStep, code: Code, inside: Sources) -> None:
        self._check_arguments(step, code.parameters, code.required, step.use, inside)
        if step.retry is not None and step.retry.times and code.kind == "at-most-once":
            reason = f"{step.use} is an at-most-once step: it cannot have 'retry'"
            inside.wrong(("steps", step.name, "retry"), reason)

    def _check_sub_flow(self, step: DraftStep, flow: Flow, inside: Sources) -> None:
        needed = frozenset(name for name, hint in flow.types.items() if not hints.fits(None, hint))
        self._check_arguments(step, flow.types, needed, step.flow, inside)
        if step.each is not None and not flow.plan.steps:
            inside.wrong(
                ("steps", step.name, "flow"), f"flow {step.flow} has no steps to carry out for each item"
            )

    def _check_arguments(
        self,
        step: DraftStep,
        parameters: Mapping[str, Hint],
        required: frozenset[str],
        owner: str,
        inside: Sources,
    ) -> None:
        path: Path = ("steps", step.name, "with")
        for name, value in step.arguments.items():
            if name in parameters:
                check(value, parameters[name], inside, (*path, name), f"parameter {name!r} of {owner}")
            else:
                known = ", ".join(parameters) or "none"
                inside.wrong((*path, name), f"{owner} has no parameter {name[:80]!r}; it has {known}")
        for name in sorted(required - step.arguments.keys()):
            inside.wrong(path, f"parameter {name!r} of {owner} is missing ({describe(parameters[name])})")

    def _check_wait(self, step: DraftStep, kind: WaitKind, inside: Sources) -> None:
        key, owner = WAITS_FOR[kind], f"'wait: {kind}'"
        value, wanted = step.arguments.get(key), _WANTED[kind]
        if kind == "until" and isinstance(value, Reference):
            wanted |= datetime
        self._check_arguments(step, {key: wanted}, frozenset({key}), owner, inside)
        if isinstance(value, Constant):
            try:
                _check_time(kind, value.value)
            except ValueError as error:
                inside.wrong(("steps", step.name, "with", key), str(error))

    def _limit_paths(self, step: DraftStep) -> list[Path]:
        """Where each of its limits is written."""
        written: Any = self.draft.document.data["steps"][step.name].get("limit") or {}
        keys = range(len(written)) if isinstance(written, list) else written
        return [("steps", step.name, "limit", key) for key in keys]


def _check_time(kind: WaitKind, value: object) -> None:
    """Of a constant, what a run would find out too late."""
    if kind == "for":
        seconds_of(value)
    elif kind == "until" and isinstance(value, str):
        try:
            aware = datetime.fromisoformat(value).tzinfo is not None
        except ValueError:
            aware = False
        if not aware:
            raise ValueError(f"{value[:80]!r} is no time with its zone; write 2030-01-31T06:00:00Z")


def _element(hint: Hint) -> Hint | None:
    """What a list of this type holds; None of what is no list, or may be anything."""
    return None if hints.bare(hint) in (Any, object) else hints.element(hint)
