"""The steps, types and flows that an engine knows."""

from collections import ChainMap
from collections.abc import MutableMapping
from importlib.resources import files
from types import MappingProxyType, ModuleType
from typing import Any

from skep.flow.definition import binding
from skep.flow.definition.binding import Bound
from skep.flow.definition.catalogue import Code, inspect_step
from skep.flow.definition.draft import Draft, draft
from skep.flow.definition.hints import Hint
from skep.flow.definition.plan import Flow, Plan, compact
from skep.flow.definition.wiring import DEEPEST_FLOW, wire
from skep.flow.errors import FlowError, Problem, StepError, Unloadable
from skep.flow.steps import Step

__all__ = ["Bound", "Registry"]


class Registry:
    """Filled once, before the engine is opened.

    What is not found here is looked for in the parent.  `bundle` is the hash of the bundle whose steps, types
    and flows these are: plans remember it, and are carried out by that bundle's code only.
    """

    def __init__(self, parent: "Registry | None" = None, bundle: str = "") -> None:
        self.parent = parent
        self.bundle = bundle
        self.steps: MutableMapping[str, Code] = ChainMap({}, *([parent.steps] if parent else []))
        self.types: MutableMapping[str, Hint] = ChainMap({}, *([parent.types] if parent else []))
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
        self.steps[name] = inspect_step(step, name, self.bundle)

    def add_type(self, *types: Hint) -> None:
        """Types (also NewTypes) that an `input:`, or the `as:` of a signal, may name."""
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
        self.add_documents({item.name: item.read_text("utf-8") for item in found})

    def add_documents(self, texts: dict[str, str]) -> list[Flow]:
        """Documents by file name, which may refer to each other in any order.

        Raises:
            FlowError: with the faults of all documents.
        """
        problems: list[Problem] = []
        names: list[str] = []
        for file, text in texts.items():
            try:
                names.append(self._keep(draft(text, file)).name)
            except FlowError as error:
                problems += error.problems
        for name in names:
            try:
                self.flow(name)
            except FlowError as error:
                problems += error.problems
        if problems:
            raise FlowError(list(dict.fromkeys(problems)))
        return [self.flow(name) for name in names]

    def parse(self, text: str, file: str) -> Flow:
        """Check a document without keeping it; it may use the flows that are kept."""
        return compact(wire(draft(text, file), self))

    def flows(self) -> list[str]:
        """The names of all flows, sorted."""
        return sorted({*self._drafts, *(self.parent.flows() if self.parent else ())})

    def flow(self, name: str) -> Flow:
        """The flow of that name.

        Raises:
            LookupError: there is none, or it contains itself.
            FlowError: it was added and has faults.
        """
        if name in self._flows:
            return self._flows[name]
        if name not in self._drafts:
            if self.parent is not None:
                return self.parent.flow(name)
            raise LookupError(f"there is no flow {name!r}")
        if name in self._wiring:
            raise LookupError(f"flow {name} contains itself: {' → '.join([*self._wiring, name])}")
        if len(self._wiring) > DEEPEST_FLOW:
            raise LookupError(f"sub-flows are nested deeper than {DEEPEST_FLOW} levels")
        self._wiring.append(name)
        try:
            self._flows[name] = wire(self._drafts[name], self)
        finally:
            self._wiring.pop()
        return self._flows[name]

    # stored plans

    def code(self, bundle: str, use: str) -> Code:
        """The code of that step in that bundle.

        Raises:
            Unloadable: it no longer exists.
        """
        found = self.steps.get(use)
        if found is not None and found.bundle == bundle:
            return found
        if self.parent is not None:
            return self.parent.code(bundle, use)
        raise Unloadable(f"step {use} {_of(bundle)} no longer exists")

    def types_of(self, bundle: str) -> MutableMapping[str, Hint]:
        """The types that documents of that bundle may name.

        Raises:
            Unloadable: there is no such bundle.
        """
        if bundle == self.bundle:
            return self.types
        if self.parent is not None:
            return self.parent.types_of(bundle)
        raise Unloadable(f"the types {_of(bundle)} no longer exist")

    def bind(self, plan: Plan) -> Bound:
        """Join a stored plan with the code it is pinned to.

        Raises:
            Unloadable: a step or a type that it names no longer exists.
        """
        return binding.bind(plan, self)

    def load(self, content: bytes) -> Bound:
        """The same from its stored form."""
        return self.bind(binding.read(content))

    def stored_flow(self, content: bytes) -> Flow:
        """A flow from its stored form; the types of its output are not known any more.

        Raises:
            Unloadable: it cannot be read, or a type of its input no longer exists.
        """
        plan = binding.read(content)
        return Flow(plan, "", MappingProxyType(binding.input_types(plan, self)))

    def _keep(self, drafted: Draft) -> Draft:
        if drafted.name in self._drafts:
            first = self._drafts[drafted.name].document
            if (first.file, first.data) != (drafted.document.file, drafted.document.data):
                reason = f"flow {drafted.name} is defined already, at {first.where(('flow',))}"
                raise FlowError([Problem(drafted.document.where(("flow",)), "", reason)])
        self._drafts[drafted.name] = drafted
        return drafted


def _of(bundle: str) -> str:
    return f"of bundle {bundle[:12]}" if bundle else "of the program"
