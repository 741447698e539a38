"""How a release comes into force: `update_config`, `rollback_config`, `endpoint_mode`, `x-skep.release`."""

from collections.abc import Mapping
from typing import Any, Literal, TypeVar, get_args

import msgspec

from skep.compose.cursor import Cursor
from skep.compose.problems import closest
from skep.model.spec import AppExtensions, ReleasePolicy, UpdateConfig

MOST_AT_ONCE = 10_000
MOST_STEPS = 20

Order = Literal["stop-first", "start-first"]
FailureAction = Literal["continue", "rollback", "pause"]
Strategy = Literal["rolling", "atomic", "canary"]

T = TypeVar("T", bound=msgspec.Struct)


def read_update(config: Cursor) -> UpdateConfig:
    """`update_config` or `rollback_config`; what is not said has the defaults of UpdateConfig."""
    values = {
        "parallelism": config.get("parallelism").integer(0, MOST_AT_ONCE),
        "delay": config.get("delay").duration(),
        "order": _one_of(config.get("order"), get_args(Order)),
        "monitor": config.get("monitor").duration(),
        "max_failure_ratio": config.get("max_failure_ratio").number(0, 1),
        "failure_action": _one_of(config.get("failure_action"), get_args(FailureAction)),
    }
    return _made(UpdateConfig, values)


def read_app_extensions(extensions: Cursor) -> AppExtensions:
    """`x-skep` at the top level of the file."""
    _only(extensions, {field.name for field in msgspec.structs.fields(AppExtensions)}, "an app's x-skep")
    return AppExtensions(
        release=_read_release(extensions.get("release")), zones=extensions.get("zones").texts()
    )


def _read_release(policy: Cursor) -> ReleasePolicy:
    _only(policy, {field.name for field in msgspec.structs.fields(ReleasePolicy)}, "release")
    values = {
        "strategy": _one_of(policy.get("strategy"), get_args(Strategy)),
        "deadline": policy.get("deadline").duration(),
        "drain": policy.get("drain").duration(),
        "steps": _steps(policy.get("steps")),
        "interval": policy.get("interval").duration(),
        "max_error_rate": policy.get("max_error_rate").number(0, 1),
        "max_latency": policy.get("max_latency").number(1, 1_000_000),
        "unchecked": policy.get("unchecked").boolean() if policy.has("unchecked") else None,
    }
    return _made(ReleasePolicy, values)


def _steps(steps: Cursor) -> tuple[int, ...] | None:
    """Percentages of new connections, each more than the one before."""
    if not steps.exists:
        return None
    if not isinstance(steps.node.value, list):
        steps.error("must be a list of percentages, like [5, 25, 50]")
        return None
    found = [number for item in steps.items() if (number := item.integer(1, 99)) is not None]
    if not found or len(found) > MOST_STEPS:
        steps.error(f"must have 1 to {MOST_STEPS} steps")
    elif found != sorted(set(found)):
        steps.error("each step must be more than the one before")
    return tuple(found) or None


def _one_of(cursor: Cursor, words: tuple[str, ...]) -> str | None:
    text = cursor.text()
    if text is None or text in words:
        return text
    close = closest(text, words)
    hint = f"did you mean {close}?" if close else f"must be {', '.join(words[:-1])} or {words[-1]}"
    cursor.error(f"{text[:40]!r}: {hint}")
    return None


def _only(cursor: Cursor, known: set[str], what: str) -> None:
    if cursor.exists and not isinstance(cursor.node.value, dict):
        cursor.error("must be a mapping")
    for key, value in cursor.entries():
        if key not in known:
            close = closest(key, known)
            hint = f"did you mean {close}?" if close else f"{what} knows {', '.join(sorted(known))}"
            value.error(f"unknown key {key[:40]!r}; {hint}")


def _made(kind: type[T], values: Mapping[str, Any]) -> T:
    return kind(**{key: value for key, value in values.items() if value is not None})
