"""What was applied, against what is there: whether somebody else changed it.  Pure.

What skep applies bears the digest of what was applied.  So a process that begins knows what it need not
apply again: what is of the digest that it would write, and of which no field is another one by now.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from skep.providers.kubernetes.manifests import DOMAIN, Manifest
from skep.providers.kubernetes.quantities import amount

APPLIED = f"{DOMAIN}/applied"
"""The annotation."""
_OF_LISTS = ("apiVersion", "kind")
"""What the objects in a list need not say."""
SHUTTING = ("NetworkPolicy", "ResourceQuota", "LimitRange")
"""Kinds that shut somebody in: one more field can open them."""
_QUANTITIES = (".resources", ".sizeLimit", ".hard", ".defaultRequest")


def digest(manifest: Manifest) -> str:
    return hashlib.blake2b(msgspec.json.encode(manifest), digest_size=16).hexdigest()


def stamped(manifest: Manifest) -> Manifest:
    """With its own digest."""
    metadata = manifest["metadata"]
    marks = (metadata.get("annotations") or {}) | {APPLIED: digest(manifest)}
    return manifest | {"metadata": metadata | {"annotations": marks}}


def stands(manifest: Manifest, live: Mapping[str, Any]) -> bool:
    """Whether it need not be applied: what is there was made of it, and is still as it was made."""
    marks = live.get("metadata", {}).get("annotations") or {}
    body = {key: value for key, value in manifest.items() if key not in _OF_LISTS}
    if marks.get(APPLIED) != digest(manifest) or any(drifted(body, live)):
        return False
    return manifest["kind"] not in SHUTTING or not added(manifest, live)


def added(manifest: Manifest, live: Mapping[str, Any]) -> list[str]:
    """Fields that others have put into its specification."""
    return list(_more(live["spec"], manifest["spec"], "spec"))


def drifted(ours: Any, live: Any, path: str = "") -> Iterator[str]:
    """Fields that are not as they were applied; what the cluster added is no drift.

    Quantities are compared by what they mean: the cluster writes them in its own way.
    """
    if isinstance(ours, Mapping) and isinstance(live, Mapping):
        for key, value in ours.items():
            yield from drifted(value, live.get(key), f"{path}.{key}")
    elif isinstance(ours, list) and isinstance(live, list) and len(ours) == len(live):
        for number, value in enumerate(ours):
            yield from drifted(value, live[number], f"{path}[{number}]")
    elif ours != live and (ours or live) and not (_holds_quantities(path) and _equal(ours, live)):
        yield path


def _more(live: Any, ours: Any, path: str) -> Iterator[str]:
    """An absent selector is nobody, and an empty one everybody; a list may be empty or absent."""
    if isinstance(live, Mapping) and isinstance(ours, Mapping):
        for key, value in live.items():
            if key in ours:
                yield from _more(value, ours[key], f"{path}.{key}")
            elif value not in (None, []):
                yield f"{path}.{key}"
    elif isinstance(live, list) and isinstance(ours, list):
        for number, (value, own) in enumerate(zip(live, ours, strict=False)):
            yield from _more(value, own, f"{path}[{number}]")
        if len(live) > len(ours):
            yield path


def is_younger(version: str | None, than: str | None) -> bool:
    """Whether something was written after something else, by their resource versions.

    They are numbers that grow, of all versions of Kubernetes; of a cluster that has others, nothing is old.
    https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
    """
    try:
        return int(version or "") > int(than or "")
    except ValueError:
        return True


def _holds_quantities(path: str) -> bool:
    return any(f"{part}." in f"{path}." for part in _QUANTITIES)


def _equal(one: object, other: object) -> bool:
    try:
        return amount(str(one)) == amount(str(other))
    except ValueError:
        return False
