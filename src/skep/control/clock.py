"""Times as people and the API read them."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import overload

Now = Callable[[], float]
"""Seconds since 1970."""


@overload
def rfc3339(moment: float | datetime) -> str: ...
@overload
def rfc3339(moment: None) -> None: ...
@overload
def rfc3339(moment: datetime | None) -> str | None: ...
@overload
def rfc3339(moment: float | None) -> str | None: ...
def rfc3339(moment: float | datetime | None) -> str | None:
    """`2026-01-02T03:04:05.678Z`, from seconds since 1970 or an aware datetime."""
    if moment is None:
        return None
    if not isinstance(moment, datetime):
        moment = datetime.fromtimestamp(moment, UTC)
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
