"""Durations and sizes as Compose writes them.

Formats: https://github.com/compose-spec/compose-spec/blob/main/11-extension.md, sections "Specifying
durations" and "Specifying byte values".
"""

import re

from skep.model.ids import Bytes, Seconds

_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h|d|w))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d|w)")
_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
    "w": 604_800_000_000_000,
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)i?b?", re.IGNORECASE)
_LONGEST = 64
_POWERS = {unit: 1024**power for power, unit in enumerate(["", "k", "m", "g", "t", "p"])}
LARGEST = 2**63 - 1


def parse_duration(text: str) -> Seconds:
    """`1m30s`, `10s`, `1h5m30s20ms`, `1.5s`, `0` in seconds.

    Raises:
        ValueError: it is none; the message says what one looks like.
    """
    if text.strip() == "0":
        return Seconds(0.0)
    if len(text) > _LONGEST or not _DURATION.fullmatch(text.strip()):
        raise ValueError(f"{text[:_LONGEST]!r} is no duration: write it like 10s, 1m30s or 500ms")
    total = sum(float(number) * _NANOSECONDS[unit] for number, unit in _DURATION_PART.findall(text))
    return Seconds(total / 1_000_000_000)


def format_duration(seconds: Seconds) -> str:
    """The shortest Compose text of a duration, exact to the microsecond: `1h5m30s20ms`."""
    rest = round(seconds * 1_000_000)
    parts = []
    for unit in ("h", "m", "s", "ms", "us"):
        count, rest = divmod(rest, _NANOSECONDS[unit] // 1000)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_size(text: str) -> Bytes:
    """`64m`, `1.5gb`, `300kb`, `1024`, `2 GiB` in bytes; units are powers of 1024.

    Raises:
        ValueError: it is none, or beyond 2^63.
    """
    match = _SIZE.fullmatch(text.strip()) if len(text) <= _LONGEST else None
    if not match:
        raise ValueError(f"{text[:_LONGEST]!r} is no size: write bytes, or a number with b, k, m, g or t")
    number, unit = match[1], match[2].lower()
    power = _POWERS[unit]
    size = int(float(number) * power) if "." in number else int(number) * power
    if size > LARGEST:
        raise ValueError(f"{text!r} is too large")
    return Bytes(size)


def format_size(size: Bytes) -> str:
    """The shortest exact Compose text of a size: `64m`, `1536k`, `1000b`."""
    for unit in ("p", "t", "g", "m", "k"):
        if size and size % _POWERS[unit] == 0:
            return f"{size // _POWERS[unit]}{unit}"
    return f"{size}b"


def scalar_text(value: str | int | float | bool | None) -> str:
    """A YAML scalar as the text Compose passes on: `true`, `511`, `1.5`, `1e+06` (Go's %v)."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return _float_text(value) if isinstance(value, float) else str(value)


def _float_text(value: float) -> str:
    if value != value or value in (float("inf"), float("-inf")):
        return {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}[repr(value)]
    digits, exponent = f"{value:.17e}".split("e")
    for precision in range(18):
        shorter = f"{value:.{precision}e}"
        if float(shorter) == value:
            digits, exponent = shorter.split("e")
            break
    power = int(exponent)
    if -4 <= power < 21:
        return f"{value:.{max(len(digits.replace('-', '').replace('.', '')) - 1 - power, 0)}f}"
    return f"{digits}e{power:+03d}"
