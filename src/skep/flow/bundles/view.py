"""The program and the active bundles as one registry.  A view never changes; a switch is another view."""

from collections import ChainMap
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from fnmatch import fnmatchcase

from skep.flow.bundles.version import Version
from skep.flow.definition.binding import every_step
from skep.flow.definition.catalogue import Code
from skep.flow.definition.draft import Draft
from skep.flow.definition.expressions import Constant, Expression, Text
from skep.flow.definition.hints import Hint
from skep.flow.definition.plan import Flow, Plan
from skep.flow.definition.registry import Registry
from skep.flow.definition.wiring import DEEPEST_FLOW, wire
from skep.flow.errors import FlowError, Unloadable


class View(Registry):
    """Each document is wired with the steps of all, and the types of the program and of its own bundle."""

    def __init__(self, base: Registry, versions: Sequence[Version]) -> None:
        super().__init__(base)
        self.base = base
        self.versions = {version.hash: version for version in versions}
        self._owners: dict[str, Version] = {}
        self._open: list[str] = []
        for version in versions:
            self.steps.maps[0].update(version.steps)  # type: ignore[attr-defined]
            self._owners.update(dict.fromkeys(version.drafts, version))
        taken = self._owners.keys() & set(base.flows())
        self._rewired = self._based_on(taken)

    def flows(self) -> list[str]:
        return sorted({*self.base.flows(), *self._owners})

    def flow(self, name: str) -> Flow:
        if name in self._flows:
            return self._flows[name]
        owner = self._owners.get(name)
        if owner is None and name not in self._rewired:
            return self.base.flow(name)
        if name in self._open:
            raise LookupError(f"flow {name} contains itself: {' → '.join([*self._open, name])}")
        if len(self._open) > DEEPEST_FLOW:
            raise LookupError(f"sub-flows are nested deeper than {DEEPEST_FLOW} levels")
        self._open.append(name)
        try:
            self._flows[name] = self._wired(name, owner)
        finally:
            self._open.pop()
        return self._flows[name]

    def code(self, bundle: str, use: str) -> Code:
        version = self.versions.get(bundle)
        if version is None:
            return self.base.code(bundle, use)
        if use not in version.steps:
            raise Unloadable(f"{version} has no step {use}")
        return version.steps[use]

    def types_of(self, bundle: str) -> MutableMapping[str, Hint]:
        version = self.versions.get(bundle)
        return (
            self.base.types_of(bundle) if version is None else ChainMap(dict(version.types), self.base.types)
        )

    def problems(self) -> list[str]:
        """Why these cannot all be active together; nothing if they can."""
        found = [*self._conflicts(), *self._impossible_kinds()]
        for name in (*self._rewired, *self._owners):
            try:
                plan = self.flow(name).plan
            except FlowError as error:
                where = f"{self._owners[name]}: " if name in self._owners else ""
                found += [f"{where}{problem}" for problem in error.problems]
            except LookupError as error:
                found.append(f"flow {name}: {error}")
            else:
                found += self._forbidden_routes(plan)
        return list(dict.fromkeys(found))

    # wiring

    def _wired(self, name: str, owner: Version | None) -> Flow:
        if owner is None:
            return wire(self._base_draft(name), _Scope(self, "", self.base.types))
        return wire(owner.drafts[name], _Scope(self, owner.hash, self.types_of(owner.hash)))

    def _base_draft(self, name: str) -> Draft:
        registry: Registry | None = self.base
        while registry is not None:
            if name in registry._drafts:
                return registry._drafts[name]
            registry = registry.parent
        raise LookupError(f"there is no flow {name!r}")

    def _based_on(self, taken: set[str]) -> set[str]:
        """The program's flows that contain one of these: they are to contain the bundle's instead."""
        found: set[str] = set()
        grown = set(taken)
        while grown:
            grown = {
                name
                for name in self.base.flows()
                if name not in found and self._contains(self._base_draft(name), grown)
            }
            found |= grown
        return found - self._owners.keys()

    def _contains(self, draft: Draft, names: set[str]) -> bool:
        return any(step.flow in names for step in draft.steps.values())

    # what may not be

    def _conflicts(self) -> Iterator[str]:
        steps: dict[str, Version] = {}
        flows: dict[str, Version] = {}
        program = set(self.base.flows())
        for version in self.versions.values():
            for name in version.steps:
                if name in self.base.steps:
                    yield f"{version}: step {name} is the program's"
                elif (other := steps.setdefault(name, version)) is not version:
                    yield f"{version}: step {name} is one of {other} already"
            for name in version.drafts:
                if name in program and name not in version.manifest.rights.overrides:
                    yield f"{version}: flow {name} is the program's; to replace it add it to rights.overrides"
                if (other := flows.setdefault(name, version)) is not version:
                    yield f"{version}: flow {name} is one of {other} already"

    def _impossible_kinds(self) -> Iterator[str]:
        for version in self.versions.values():
            if version.manifest.process == "worker" and version.manifest.rights.database:
                continue
            for name, code in version.steps.items():
                if code.kind == "transactional":
                    yield (
                        f"{version}: step {name} is transactional: that needs 'process: worker' and "
                        "'rights: {database: true}'"
                    )

    def _forbidden_routes(self, plan: Plan) -> Iterator[str]:
        for step in every_step(plan.steps):
            version = self.versions.get(step.bundle)
            if version is None or step.on is None or not step.use:
                continue
            if not any(_may_go(step.on, pattern) for pattern in version.manifest.rights.routes):
                yield (
                    f"flow {plan.flow}: step {step.name} is sent to a route ('on') that {version} "
                    f"has no right to: add it to rights.routes"
                )


class _Scope:
    """What the documents of one bundle may name."""

    def __init__(self, view: View, bundle: str, types: Mapping[str, Hint]) -> None:
        self.bundle = bundle
        self.steps: Mapping[str, Code] = view.steps
        self.types = types
        self.flow = view.flow


def _may_go(route: Expression, pattern: str) -> bool:
    """Whether the route is sure to match the pattern, as far as it is known before the run."""
    if isinstance(route, Constant):
        return fnmatchcase(str(route.value), pattern)
    if isinstance(route, Text) and isinstance(route.parts[0], str) and pattern.endswith("*"):
        return route.parts[0].startswith(pattern.rstrip("*"))
    return pattern == "*"
