"""When a schedule is due: cron expressions in a time zone.

CronSim does as Debian's cron when clocks change.  A time that is left out in spring is due when the clocks
have changed; one that comes twice in autumn is due the first time.  Expressions with `*` for their hour or
minute follow the hours that really pass.
"""

from datetime import UTC, datetime
from functools import cached_property
from itertools import islice
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from msgspec import Struct

from skep.flow.errors import FlowFault

NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class WrongSchedule(FlowFault, ValueError):
    """A schedule cannot be kept as it is written."""


class Times(Struct, frozen=True, dict=True):
    """The times of a five-field cron expression, or of a nickname like @daily, in a zone as IANA names it.

    Moments are seconds since 1970.
    """

    cron: str
    timezone: str = "UTC"

    def check(self) -> None:
        """Raises WrongSchedule: no such zone, no such time, or none within fifty years."""
        if len(self._expression.split()) != 5:
            raise WrongSchedule(f"{self.cron!r} is no cron time: it takes minute hour day month weekday")
        try:
            self.after(datetime.now(UTC).timestamp())
        except CronSimError as error:
            raise WrongSchedule(f"{self.cron!r} is no cron time: {error}") from error

    def after(self, moment: float) -> float:
        """The first due time later than the moment.  Raises WrongSchedule: there is none."""
        return self.upcoming(moment, 1)[0]

    def upcoming(self, moment: float, count: int) -> list[float]:
        """The next so many due times after the moment."""
        times = (due.timestamp() for due in CronSim(self._expression, self._local(moment)))
        found = list(islice((time for time in times if time > moment), count))
        if not found:
            raise WrongSchedule(f"{self.cron!r} is not due within the next fifty years")
        return found

    @property
    def _expression(self) -> str:
        return NICKNAMES.get(self.cron.strip(), self.cron)

    @cached_property
    def _zone(self) -> ZoneInfo:
        try:
            return ZoneInfo(self.timezone)
        except (KeyError, ValueError, OSError) as error:
            raise WrongSchedule(f"there is no time zone {self.timezone!r}") from error

    def _local(self, moment: float) -> datetime:
        return datetime.fromtimestamp(moment, self._zone)
