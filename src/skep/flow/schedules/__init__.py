"""Flows that start by the clock: cron times in a time zone, each due time at most one run."""

from skep.flow.schedules.schedule import (
    Missed,
    Overlap,
    Schedule,
    UnknownSchedule,
    WrongSchedule,
)
from skep.flow.schedules.schedules import Schedules
from skep.flow.schedules.times import Times

__all__ = ["Missed", "Overlap", "Schedule", "Schedules", "Times", "UnknownSchedule", "WrongSchedule"]
