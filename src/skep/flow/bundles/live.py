"""The registry of an engine: today's view for what begins, every loaded version for what goes on."""

from collections import ChainMap
from collections.abc import MutableMapping

from skep.flow.bundles.version import Version
from skep.flow.bundles.view import View
from skep.flow.definition.catalogue import Code
from skep.flow.definition.hints import Hint
from skep.flow.definition.plan import Flow
from skep.flow.definition.registry import Registry
from skep.flow.errors import Unloadable


class LiveRegistry(Registry):
    """`view` is what new runs see; a switch puts another in its place, at once."""

    def __init__(self, base: Registry) -> None:
        super().__init__(base)
        self.base = base
        self.loaded: dict[str, Version] = {}
        self.faults: dict[str, str] = {}
        """Why versions cannot be loaded, by hash."""
        self.view = View(base, ())

    def switch(self, view: View) -> None:
        self.view = view
        self.steps, self.types = view.steps, view.types

    def flows(self) -> list[str]:
        return self.view.flows()

    def flow(self, name: str) -> Flow:
        return self.view.flow(name)

    def parse(self, text: str, file: str) -> Flow:
        return self.view.parse(text, file)

    def code(self, bundle: str, use: str) -> Code:
        if not bundle:
            return self.base.code(bundle, use)
        version = self._version(bundle)
        if use not in version.steps:
            raise Unloadable(f"{version} has no step {use}")
        return version.steps[use]

    def types_of(self, bundle: str) -> MutableMapping[str, Hint]:
        if not bundle:
            return self.base.types_of(bundle)
        return ChainMap(dict(self._version(bundle).types), self.base.types)

    def _version(self, bundle: str) -> Version:
        try:
            return self.loaded[bundle]
        except KeyError as error:
            reason = self.faults.get(bundle, "it is not loaded")
            raise Unloadable(f"version {bundle[:12]} of a bundle: {reason}") from error
