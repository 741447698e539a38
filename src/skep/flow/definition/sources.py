"""What references mean in one place of a flow: the types behind them."""

from collections import ChainMap
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, replace

from skep.documents import Path
from skep.flow.definition import hints
from skep.flow.definition.comparisons import certain
from skep.flow.definition.expressions import INPUT, Reference
from skep.flow.definition.hints import Hint, describe

Wrong = Callable[[Path, str], None]


class _Unknown:
    """The type of what could not be resolved: said once, not again wherever it is used."""


UNKNOWN: Hint = _Unknown


@dataclass(frozen=True)
class Source:
    """Where a reference may begin: at a value, or at one of several named ones (`what` says which)."""

    hint: Hint = UNKNOWN
    named: Mapping[str, Hint] | None = None
    what: str = ""


@dataclass(frozen=True)
class Sources:
    """`certain`: references that are known not to be None here, because a condition says so."""

    known: MutableMapping[str, Source]
    wrong: Wrong
    certain: frozenset[Reference] = frozenset()

    def within(self, local: Mapping[str, Source]) -> "Sources":
        """The same inside a fan-out."""
        return replace(self, known=ChainMap(dict(local), self.known))

    def sure_of(self, references: frozenset[Reference]) -> "Sources":
        return replace(self, certain=self.certain | references) if references else self

    def type_of(self, reference: Reference, path: Path) -> Hint:
        """The type of what the reference means, or UNKNOWN after noting why not."""
        found = self._begin(reference, path)
        if found is None:
            return UNKNOWN
        hint, depth = found
        for name in reference.path[depth:]:
            said = Reference(reference.source, reference.path[:depth])
            fields = hints.fields(hint)
            if fields is None or name not in fields:
                self.wrong(path, f"{said} is {describe(hint)}, which has no field {name!r}{_known(fields)}")
                return UNKNOWN
            depth += 1
            hint = self._sure(reference, depth, fields[name])
        return hint

    def _begin(self, reference: Reference, path: Path) -> tuple[Hint, int] | None:
        """The type where a reference begins, and how many of its fields that took."""
        source = self.known.get(reference.source)
        if source is None:
            self.wrong(path, _unknown(reference))
            return None
        if source.named is None:
            return None if source.hint is UNKNOWN else (self._sure(reference, 0, source.hint), 0)
        if not reference.path or reference.path[0] not in source.named:
            known = ", ".join(source.named) or "none"
            self.wrong(path, f"{reference} does not name {source.what}; it has {known}")
            return None
        return self._sure(reference, 1, source.named[reference.path[0]]), 1

    def _sure(self, reference: Reference, depth: int, hint: Hint) -> Hint:
        if not self.certain or Reference(reference.source, reference.path[:depth]) not in self.certain:
            return hint
        return certain(hint)


def _known(fields: Mapping[str, Hint] | None) -> str:
    return f"; it has {', '.join(fields)}" if fields else ""


def _unknown(reference: Reference) -> str:
    if reference.is_local:
        return f"{reference} means something within a fan-out ('each: ...') only"
    return f"{reference} refers to {reference.source!r}, which is no step of this flow"


def of_input(types: Mapping[str, Hint]) -> dict[str, Source]:
    return {INPUT: Source(named=types, what="an input of the flow")}
