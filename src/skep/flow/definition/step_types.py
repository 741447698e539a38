"""The type behind each step of a flow: what `$step` means."""

from collections.abc import Iterable, Mapping

from skep.flow.definition.catalogue import Code
from skep.flow.definition.comparisons import optional
from skep.flow.definition.draft_steps import DraftStep
from skep.flow.definition.hints import Hint
from skep.flow.definition.plan import Approval, Flow
from skep.flow.definition.sources import UNKNOWN, Source, of_input


class StepTypes:
    """`carried`: what the signals bring that steps wait for."""

    def __init__(
        self, codes: Mapping[str, Code], flows: Mapping[str, Flow], carried: Mapping[str, Hint]
    ) -> None:
        self.codes = codes
        self.flows = flows
        self.carried = carried

    def sources(self, inputs: Mapping[str, Hint], steps: Mapping[str, DraftStep]) -> dict[str, Source]:
        return of_input(inputs) | {name: self._source(step) for name, step in steps.items()}

    def _source(self, step: DraftStep) -> Source:
        if step.flow and step.each is None:
            return self._outputs(step)
        hint = self._of_flow(step) if step.flow else self._of_one(step)
        if hint is UNKNOWN:
            return Source()
        if step.each is not None:
            hint = _joined(step, hint)
        return Source(optional(hint) if step.when is not None and not step.is_chosen_per_item else hint)

    def _outputs(self, step: DraftStep) -> Source:
        if step.name not in self.flows:
            return Source()
        named = self.flows[step.name].outputs
        if step.when is not None:
            named = {name: optional(hint) for name, hint in named.items()}
        return Source(named=named, what=f"an output of {step.name}")

    def _of_one(self, step: DraftStep) -> Hint:
        if step.use:
            return self.codes[step.name].returns if step.name in self.codes else UNKNOWN
        if step.wait == "approval":
            return Approval
        return self.carried.get(step.name, None)

    def _of_flow(self, step: DraftStep) -> Hint:
        """Its outputs under their names."""
        if step.name not in self.flows:
            return UNKNOWN
        return dict[str, _common(self.flows[step.name].outputs.values())]  # type: ignore[misc]


def _joined(step: DraftStep, hint: Hint) -> Hint:
    """One result per item; none of those that may fail, or are skipped."""
    missing = step.is_chosen_per_item or (step.each is not None and step.each.failures > 0)
    return list[optional(hint) if missing else hint]  # type: ignore[misc]


def _common(hints: Iterable[Hint]) -> Hint:
    first, *rest = [*hints] or [object]
    return first if all(hint == first for hint in rest) else object
