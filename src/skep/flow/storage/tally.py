"""Decides who may go now under limits that several workers keep together, from what the tables say."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from msgspec import Struct

from skep.flow.admission.policies import Policies
from skep.flow.admission.tickets import Ticket, Use
from skep.flow.runs import Reason
from skep.flow.steps import RunId

Order = tuple[int, RunId]


class Wanted(Struct, frozen=True):
    """A step that could go now, with every limit in force on it: those of wider keys too, each key once."""

    run: RunId
    step: str
    priority: int
    limits: tuple[Use, ...]

    @classmethod
    def by(cls, ticket: Ticket, policies: Policies) -> "Wanted":
        return cls(ticket.run, ticket.step, ticket.priority, policies.limits_of(ticket))

    @property
    def order(self) -> Order:
        return self.priority, self.run


class Bucket(Struct):
    """Tokens at a time; they grow by `rate` a second up to the burst."""

    tokens: float
    at: float

    def fill(self, rate: float, burst: float, time: float) -> None:
        """A clock that was put back gives nothing and takes nothing."""
        self.tokens = min(burst, self.tokens + max(0.0, time - self.at) * rate)
        self.at = time


class Tally:
    """What is taken at one moment, and what that leaves for those who want more; no I/O.

    `ahead` are, by key, the first ones that wait in each of the other workers.
    """

    def __init__(
        self,
        counts: Mapping[str, int],
        buckets: Mapping[str, Bucket],
        ahead: Mapping[str, Sequence[Order]],
        time: float,
    ) -> None:
        self.buckets = dict(buckets)
        self.permitted: list[tuple[str, Wanted]] = []
        self.marks: dict[str, Wanted] = {}
        self._counts = Counter(counts)
        self._ahead = ahead
        self._time = time

    def judge(self, wanted: Wanted) -> Reason | None:
        """Take what it wants, all or nothing; or say what stands against it."""
        full = next((reason for use in wanted.limits if (reason := self._full(use, wanted))), None)
        if full:
            self._mark(wanted)
            return full
        early = next((reason for use in wanted.limits if (reason := self._early(use))), None)
        if early is None:
            self._take(wanted)
        return early

    def _full(self, use: Use, wanted: Wanted) -> Reason | None:
        if use.concurrency is None:
            return None
        count = self._counts[use.key]
        if count >= use.concurrency:
            message = f"{use.key} has {count} of {use.concurrency} under way."
            return Reason(kind="limit", subject=use.key, message=message)
        before = [order for order in self._ahead.get(use.key, ()) if order < wanted.order]
        if count + len(before) < use.concurrency:
            return None
        runs = ", ".join(f"run {run}" for _, run in before)
        message = (
            f"{use.key} has {count} of {use.concurrency} under way, and {runs} of other workers go before."
        )
        return Reason(kind="limit", subject=use.key, message=message, holders=tuple(run for _, run in before))

    def _early(self, use: Use) -> Reason | None:
        if use.rate is None:
            return None
        bucket = self._filled(use, use.rate)
        if bucket.tokens >= 1.0:
            return None
        if use.rate <= 0.0:
            return Reason(kind="rate", subject=use.key, message=f"{use.key} is switched off.")
        until = datetime.fromtimestamp(self._time + (1.0 - bucket.tokens) / use.rate, UTC)
        message = f"{use.key} allows {use.rate:g} a second; the next may go at {until:%H:%M:%S.%f}."
        return Reason(kind="rate", subject=use.key, message=message, until=until)

    def _take(self, wanted: Wanted) -> None:
        for use in wanted.limits:
            if use.rate is not None:
                self.buckets[use.key].tokens -= 1.0
            if use.concurrency is not None:
                self._counts[use.key] += 1
                self.permitted.append((use.key, wanted))

    def _filled(self, use: Use, rate: float) -> Bucket:
        burst = burst_of(use)
        bucket = self.buckets.setdefault(use.key, Bucket(burst, self._time))
        bucket.fill(rate, burst, self._time)
        return bucket

    def _mark(self, wanted: Wanted) -> None:
        """A place is kept for it on all of its keys, or those who want one key would always be there before
        those who want two; but not if one of the keys is switched off."""
        if any(use.concurrency == 0 for use in wanted.limits):
            return
        for use in wanted.limits:
            first = self.marks.get(use.key)
            if use.concurrency is not None and (first is None or wanted.order < first.order):
                self.marks[use.key] = wanted


def burst_of(use: Use) -> float:
    """How many may go at once: what a second allows, at least one."""
    return max(1.0, use.rate or 0.0 if use.burst is None else use.burst)
