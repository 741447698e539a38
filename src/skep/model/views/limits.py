"""Limits that operators set."""

from skep.model.views.base import View


class LimitView(View, frozen=True, kw_only=True):
    """What an operator allows for a key; None leaves it to less exact keys and to the flow."""

    key: str
    concurrency: int | None
    rate: float | None
    """So many begin per second."""
    burst: float | None
    weight: float | None
    by: str
    changed: str | None
