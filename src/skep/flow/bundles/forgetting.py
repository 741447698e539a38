"""Which versions nobody needs any more.  Pure decisions."""

from collections import Counter
from collections.abc import Iterable, Sequence

from skep.flow.bundles.records import Activation, BundleInfo


def superfluous(infos: Iterable[BundleInfo], needed: frozenset[str], keep: int) -> Sequence[BundleInfo]:
    """Neither active nor needed nor among the newest `keep` of their name; `infos` are newest first."""
    seen: Counter[str] = Counter()
    gone = []
    for info in infos:
        seen[info.name] += 1
        if seen[info.name] > keep and not info.active and info.hash not in needed:
            gone.append(info)
    return gone


def recently(past: Iterable[Activation], since: float) -> frozenset[str]:
    """The versions that were in force at some time after `since`; `past` is newest first."""
    recent: set[str] = set()
    over: set[str] = set()
    for entry in past:
        if entry.name not in over and entry.hash is not None:
            recent.add(entry.hash)
        if entry.at <= since:
            over.add(entry.name)
    return frozenset(recent)
