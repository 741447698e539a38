"""Flows that start by the clock."""

from typing import Any

from skep.model.views.base import View


class ScheduleView(View, frozen=True, kw_only=True):
    name: str
    tenant: str
    flow: str
    input: dict[str, Any]
    cron: str
    timezone: str
    overlap: str
    missed: str
    priority: str | None
    paused: bool
    next: str
    last: str | None
    last_run: str
    error: str
    """Why the last due time began no run, or ""."""
    by: str
    changed: str
