"""How two releases differ, exactly and in a line.  Pure.

A release is compared as what it is made of: its specification, with images by digest and files by the hash
of their content.  Everything that is left at its default is not there, so a difference is a value that
somebody changed, or an image that became another one.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from skep.model.images import ImageInfo
from skep.model.spec import AppSpec
from skep.model.views.releases import DifferenceView

LONGEST = 120
"""Characters of a line about a release."""


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[DifferenceView, ...]:
    """Every value that differs, in the order of its path.  A list is one value: its order counts."""
    return tuple(_walk("", before, after))


def shape(spec: AppSpec | None, images: Mapping[Any, ImageInfo]) -> Mapping[str, Any]:
    """What a release is made of; of none, nothing."""
    if spec is None:
        return {}
    made: dict[str, Any] = msgspec.to_builtins(spec)
    for name, service in made["services"].items():
        if name in images:
            service["image"] = f"{service['image']}@{images[name].digest}"
    return made


def in_a_line(found: tuple[DifferenceView, ...]) -> str:
    """`web: image, replicas 2 → 3; adds cache`; what is longer is cut."""
    services: dict[str, list[str]] = {}
    others: dict[str, None] = {}
    for one in found:
        parts = one.path.split(".", 3)
        if parts[0] != "services" or len(parts) < 2:
            others[".".join(parts[:2])] = None
        elif len(parts) == 2:
            others[f"adds {parts[1]}" if one.before is None else f"removes {parts[1]}"] = None
        else:
            words = services.setdefault(parts[1], [])
            word = _word(parts[2], one)
            if word not in words:
                words.append(word)
    said = "; ".join([*(f"{name}: {', '.join(words)}" for name, words in services.items()), *others])
    return said if len(said) <= LONGEST else f"{said[: LONGEST - 1]}…"


def _word(field: str, one: DifferenceView) -> str:
    if field == "replicas":
        return f"replicas {_count(one.before)} → {_count(one.after)}"
    return field.replace("x_skep", "x-skep")


def _count(value: Any) -> Any:
    """What is left out is the default."""
    return 1 if value is None else value


def _walk(path: str, before: Any, after: Any) -> Iterator[DifferenceView]:
    if before == after:
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted(before.keys() | after.keys()):
            yield from _walk(f"{path}.{key}" if path else key, before.get(key), after.get(key))
        return
    yield DifferenceView(path=path, before=before, after=after)
