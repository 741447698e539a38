"""How long runs that ended are kept, which the configuration says and `retention` keeps to."""

from msgspec import Struct

DAY = 86_400.0


class RetentionPolicy(Struct, frozen=True, kw_only=True):
    """In seconds; None is for ever."""

    keep: float | None = 30 * DAY
    """Runs that succeeded, from their end until they are archived."""
    keep_failed: float | None = 90 * DAY
    """Those that failed or were cancelled."""
    archived: float | None = 365 * DAY
    """Archived runs, from their end until they are forgotten."""
    period: float = 600.0
    """Between two looks."""
    batch: int = 200
    """Runs that are looked at together."""
