"""Spans of time, rates, shares and priorities as people write them in documents."""

import re

from skep.flow.runs import Priority

_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)(ms|s|m|h|d)")
_RATE = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)/(s|m|h|d)")
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)%")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
LONGEST = 100 * 365 * 86400.0
"""Seconds; nobody means more."""
ALL = 1_000_000_000
"""As many failures as there may be items: what 100 % comes to."""


def seconds_of(value: object) -> float:
    """Seconds, from `90`, `1.5m`, `60s`, `500ms`, `2h`, `7d`; a number is seconds.

    Raises:
        ValueError: not a span of time, not more than 0, or longer than a century.
    """
    match = None if isinstance(value, bool) else _DURATION.fullmatch(str(value))
    match = match or _DURATION.fullmatch(f"{value}s")
    seconds = float(match[1]) * _UNIT_SECONDS[match[2]] if match else 0.0
    if not 0 < seconds <= LONGEST:
        raise ValueError(f"{_short(value)} is no duration; write 60s, 5m, 500ms or seconds")
    return seconds


def rate_of(value: object) -> float:
    """So many per second, from `100/s`, `5/m`, `2/h`.  Raises ValueError."""
    match = _RATE.fullmatch(str(value))
    if match is None or float(match[1]) <= 0:
        raise ValueError(f"{_short(value)} is no rate; write 100/s, 5/m or 2/h")
    return float(match[1]) / _UNIT_SECONDS[match[2]]


def failures_of(value: object) -> float:
    """How many items of a fan-out may fail: a count, or a share below 1 from `10%`.  Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= ALL:
        return value
    match = _SHARE.fullmatch(str(value))
    share = float(match[1]) / 100 if match else 2.0
    if share > 1:
        raise ValueError(f"{_short(value)} does not say how many may fail; write a number or 10%")
    return share if share < 1 else ALL


def priority_of(value: object) -> Priority:
    """One of the five, from its name or number.  Raises ValueError."""
    if isinstance(value, str) and value.upper() in Priority.__members__:
        return Priority[value.upper()]
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(Priority):
        return Priority(value)
    known = ", ".join(priority.name.lower() for priority in Priority)
    raise ValueError(f"{_short(value)} is no priority; there are {known}")


def _short(value: object) -> str:
    return repr(value)[:80]
