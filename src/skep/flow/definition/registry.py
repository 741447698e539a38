"""The steps, types and flows that an engine knows."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import ModuleType
from typing import Any

import msgspec

from skep.flow.definition import hints
from skep.flow.definition.catalogue import Code, inspect_step
from skep.flow.definition.draft import Draft, draft
from skep.flow.definition.graph import Graph
from skep.flow.definition.hints import Hint
from skep.flow.definition.plan import Flow, Plan
from skep.flow.definition.wiring import wire
from skep.flow.errors import FlowError, Problem, StepError, Unloadable
from skep.flow.steps import Step


@dataclass(frozen=True)
class Bound:
    """A plan joined with the code that carries it out."""

    graph: Graph
    codes: tuple[Code, ...]
    types: Mapping[str, Hint]


class Registry:
    """Filled once, before the engine is opened."""

    def __init__(self) -> None:
        self.steps: dict[str, Code] = {}
        self.types: dict[str, Hint] = {}
        self._drafts: dict[str, Draft] = {}
        self._flows: dict[str, Flow] = {}
        self._wiring: list[str] = []

    def add_module(self, module: ModuleType, prefix: str | None = None) -> None:
        """Every step that the module defines, named `prefix.function`; prefix: the module's last name.

        Raises:
            StepError: a step cannot be registered as it is written, or its name is taken.
        """
        prefix = module.__name__.rpartition(".")[2] if prefix is None else prefix
        for value in vars(module).values():
            if isinstance(value, Step) and value.__module__ == module.__name__:
                self.add_step(value, f"{prefix}.{value.name}" if prefix else value.name)

    def add_step(self, step: Step[Any, Any, Any], name: str) -> None:
        known = self.steps.get(name)
        if known is not None and known.step is not step:
            raise StepError(f"there are two steps named {name}")
        self.steps[name] = inspect_step(step, name)

    def add_type(self, *types: Hint) -> None:
        """Types (also NewTypes) that an `input:` may name."""
        for kind in types:
            self.types[kind.__name__] = kind

    def add_flow(self, text: str, file: str) -> Flow:
        """Check a document and keep it under its name.

        Raises:
            FlowError: with every fault of the document, and where it is.
        """
        drafted = self._keep(draft(text, file))
        return self.flow(drafted.name)

    def add_flows(self, package: str) -> None:
        """Every *.yaml of a package; the documents may refer to each other in any order.

        Raises:
            FlowError: with the faults of all documents.
        """
        found = sorted(
            (item for item in files(package).iterdir() if item.name.endswith(".yaml")), key=lambda i: i.name
        )
        problems: list[Problem] = []
        names: list[str] = []
        for item in found:
            try:
                names.append(self._keep(draft(item.read_text("utf-8"), item.name)).name)
            except FlowError as error:
                problems += error.problems
        for name in names:
            try:
                self.flow(name)
            except FlowError as error:
                problems += error.problems
        if problems:
            raise FlowError(list(dict.fromkeys(problems)))

    def parse(self, text: str, file: str) -> Flow:
        """Check a document without keeping it; it may use the flows that are kept."""
        return wire(draft(text, file), self)

    def flow(self, name: str) -> Flow:
        """The flow of that name.

        Raises:
            LookupError: there is none, or it contains itself.
            FlowError: it was added and has faults.
        """
        if name in self._flows:
            return self._flows[name]
        if name not in self._drafts:
            raise LookupError(f"there is no flow {name!r}")
        if name in self._wiring:
            raise LookupError(f"flow {name} contains itself: {' → '.join([*self._wiring, name])}")
        self._wiring.append(name)
        try:
            self._flows[name] = wire(self._drafts[name], self)
        finally:
            self._wiring.pop()
        return self._flows[name]

    def bind(self, plan: Plan) -> Bound:
        """Join a stored plan with today's code.

        Raises:
            Unloadable: a step or a type that it names no longer exists.
        """
        missing = sorted({step.use for step in plan.steps} - self.steps.keys())
        if missing:
            raise Unloadable(f"flow {plan.flow} needs steps that no longer exist: {', '.join(missing)}")
        try:
            types = {name: hints.read(text, self.types) for name, text in plan.input.items()}
        except ValueError as error:
            raise Unloadable(f"flow {plan.flow}: {error}") from error
        return Bound(Graph(plan), tuple(self.steps[step.use] for step in plan.steps), types)

    def load(self, content: bytes) -> Bound:
        """The same from its stored form."""
        try:
            plan = msgspec.json.decode(content, type=Plan)
        except msgspec.DecodeError as error:
            raise Unloadable(f"the stored flow cannot be read: {error}") from error
        return self.bind(plan)

    def _keep(self, drafted: Draft) -> Draft:
        if drafted.name in self._drafts:
            first = self._drafts[drafted.name].document
            if (first.file, first.data) != (drafted.document.file, drafted.document.data):
                reason = f"flow {drafted.name} is defined already, at {first.where(('flow',))}"
                raise FlowError([Problem(drafted.document.where(("flow",)), "", reason)])
        self._drafts[drafted.name] = drafted
        return drafted
