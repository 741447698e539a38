"""One version of a bundle in memory: its code, types and documents, ready to be wired and called."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

from skep.flow.bundles.isolation import Isolation
from skep.flow.bundles.manifest import Manifest
from skep.flow.bundles.namespaces import Namespace
from skep.flow.bundles.package import Package
from skep.flow.bundles.refusals import BundleRefused
from skep.flow.definition.catalogue import Code
from skep.flow.definition.draft import Draft, draft
from skep.flow.definition.hints import Hint
from skep.flow.errors import FlowError


@dataclass(frozen=True)
class Version:
    """`types` are those that its documents may name beside the program's."""

    hash: str
    manifest: Manifest
    steps: Mapping[str, Code]
    types: Mapping[str, Hint]
    drafts: Mapping[str, Draft]
    isolation: Isolation | None = None
    namespace: Namespace | None = None

    def __str__(self) -> str:
        return named(self.manifest, self.hash)

    async def close(self) -> None:
        """End its process, forget its modules."""
        if self.isolation is not None:
            await self.isolation.close()
        if self.namespace is not None:
            self.namespace.unload()


def named(manifest: Manifest, hash: str) -> str:  # noqa: A002
    return f"{manifest.bundle} {manifest.version} ({hash[:12]})"


def read_drafts(package: Package) -> dict[str, Draft]:
    """The documents of the bundle by the names of their flows; raises BundleRefused with every fault."""
    drafts: dict[str, Draft] = {}
    reasons: list[str] = []
    for file in package.flows:
        with contextlib.suppress(_Skip):
            found = _read(package, file, reasons)
            if found.name in drafts:
                reasons.append(
                    f"{file}: flow {found.name} is defined already, in {drafts[found.name].document.file}"
                )
            drafts.setdefault(found.name, found)
    if reasons:
        raise BundleRefused(reasons)
    return drafts


class _Skip(Exception):
    """This one has faults."""


def _read(package: Package, file: str, reasons: list[str]) -> Draft:
    try:
        return draft(package.text(file), file)
    except FlowError as error:
        reasons += [str(problem) for problem in error.problems]
    except BundleRefused as error:
        reasons += error.reasons
    raise _Skip
