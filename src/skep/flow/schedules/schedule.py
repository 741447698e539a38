"""A schedule, and what is to be done when it is due.  Pure."""

from datetime import UTC, datetime
from typing import Any, Literal

from msgspec import Struct

from skep.flow.errors import FlowFault
from skep.flow.runs import Priority
from skep.flow.schedules.times import Times, WrongSchedule

__all__ = ["Decision", "Missed", "Overlap", "Schedule", "UnknownSchedule", "WrongSchedule", "decide"]

Overlap = Literal["skip", "queue", "cancel", "allow"]
"""While the last run of the schedule is under way: begin none; begin one when it has ended, for however many
times were due; cancel it, and begin when it has ended; begin another one beside it."""
Missed = Literal["once", "none"]
"""For times that were due while nobody was there: begin one run for all of them, or none."""
Decision = Literal["start", "wait", "cancel", "skip", "miss"]

LATE = 60.0
"""Seconds after which a due time that nobody had seen coming counts as missed."""


class UnknownSchedule(FlowFault, LookupError):
    """There is no such schedule."""


class Schedule(Struct, frozen=True, kw_only=True):
    """A flow and when it starts; times are UTC.  Its runs bear the labels `schedule` and `due`."""

    tenant: str
    name: str
    flow: str
    input: dict[str, Any]
    cron: str
    timezone: str
    overlap: Overlap
    missed: Missed
    priority: Priority | None
    """None: what the flow says."""
    paused: bool
    next: datetime
    """When it is due; in the past: a run waits for the last one to end, or nobody has looked."""
    last: datetime | None
    last_run: str
    """The run that it began last, or ""."""
    error: str
    """Why the last due time began no run, or ""."""
    by: str
    at: datetime
    """Who changed it last, and when."""

    @property
    def times(self) -> Times:
        return Times(self.cron, self.timezone)

    @property
    def due(self) -> float:
        return self.next.timestamp()

    @property
    def due_text(self) -> str:
        return self.next.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

    @property
    def key(self) -> str:
        """Of the run of this due time: nobody begins a second one."""
        return f"schedule/{self.tenant}/{self.name}/{self.due_text}"

    def following(self, now: float) -> float:
        """When it is due after this due time, and later than now."""
        return self.times.after(max(now, self.due))


def decide(schedule: Schedule, now: float, *, busy: bool, expected: bool) -> Decision:
    """What becomes of a schedule that is due.

    `busy`: its last run is under way.  `expected`: somebody has been waiting for this due time, so that it is
    not missed however late it has become.
    """
    if schedule.missed == "none" and not expected and now - schedule.due > LATE:
        return "miss"
    if not busy or schedule.overlap == "allow":
        return "start"
    decisions: dict[Overlap, Decision] = {"skip": "skip", "queue": "wait", "cancel": "cancel"}
    return decisions[schedule.overlap]
