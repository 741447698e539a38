"""Meters: who counts on a key, what its limit and rate leave, and who waits for it."""

from collections.abc import Callable

from skep.flow.admission.fairness import FairLine
from skep.flow.admission.policies import Policy, allowance
from skep.flow.admission.rates import Bucket
from skep.flow.admission.tickets import Ticket, Use
from skep.flow.runs import Priority

LANES = len(Priority)


class Meter:
    """One key.  Entries that it keeps back are parked in a line per priority.

    `ready` counts, per priority, those that it could let pass and that wait for a slot.  No more of them are
    let out of the line than there is room, and never fewer while some are parked: so nobody is tried in vain,
    and nobody is forgotten.
    """

    __slots__ = (
        "_spent",
        "asked",
        "bucket",
        "concurrency",
        "due",
        "holders",
        "key",
        "lines",
        "named",
        "parked",
        "passed",
        "policy",
        "ready",
        "users",
    )

    def __init__(self, key: str, policy: Policy) -> None:
        self.key = key
        self.policy = policy
        self.concurrency: int | None = None
        self.bucket: Bucket | None = None
        self._spent: Bucket | None = None
        """The same, remembered while nobody asks for a rate."""
        self.holders: dict[Ticket, None] = {}
        self.users = 0
        """Entries that wait or are under way and count on it."""
        self.named = False
        """A document names it, though tickets have such keys anyhow."""
        self.asked: dict[Use, int] = {}
        """What documents allow, and how many entries say so."""
        self.lines: list[FairLine | None] = [None] * LANES
        self.parked = 0
        self.ready = [0] * LANES
        self.passed = [0] * LANES
        """How often others were let pass while such waited here."""
        self.due: float | None = None
        """When it is to be looked at again, if that is noted somewhere."""

    def room(self, now: float, most: int) -> int:
        """So many more may pass now; `most` if that is not bounded."""
        room = most
        if self.concurrency is not None:
            room = min(room, self.concurrency - len(self.holders))
        if self.bucket is not None and room > 0:
            room = min(room, self.bucket.tokens(now))
        return max(0, room)

    def full(self) -> bool:
        """Whether its limit, not its rate, keeps others back."""
        return self.concurrency is not None and len(self.holders) >= self.concurrency

    def use(self, asked: Use | None, now: float) -> bool:
        """One more entry counts on it; answers whether its limits have changed by that."""
        self.users += 1
        if asked is None:
            return self.users == 1 and self.adjust(now)
        self.asked[asked] = self.asked.get(asked, 0) + 1
        return (self.asked[asked] == 1 or self.users == 1) and self.adjust(now)

    def unuse(self, asked: Use | None, now: float) -> bool:
        """One fewer; answers whether its limits have changed by that."""
        self.users -= 1
        if asked is None:
            return False
        self.asked[asked] -= 1
        if self.asked[asked]:
            return False
        del self.asked[asked]
        return bool(self.users) and self.adjust(now)

    def adjust(self, now: float) -> bool:
        """Put in force what the policy says, or the strictest of the documents; answers whether it is new."""
        wanted = allowance(self.policy, _strictest(self.key, self.asked), self.key)
        before = (self.concurrency, self._pace())
        self.concurrency = wanted.concurrency
        if wanted.rate is None:
            self.bucket = None
        else:
            self._spent = self._spent or Bucket(wanted.rate, wanted.burst)
            self._spent.change(wanted.rate, wanted.burst, now)
            self.bucket = self._spent
        return before != (self.concurrency, self._pace())

    def line(self, lane: int, weight: Callable[[str], float]) -> FairLine:
        line = self.lines[lane]
        if line is None:
            line = self.lines[lane] = FairLine(weight)
        return line

    def waits(self, lane: int) -> bool:
        line = self.lines[lane]
        return line is not None and line.size > 0

    def pass_by(self, lane: int) -> None:
        """One of this lane was let pass: all others that wait here have waited once more."""
        if not self.parked and not any(self.ready):
            self.passed = [0] * LANES
            return
        for other, ready in enumerate(self.ready):
            waits = other != lane and (ready or self.waits(other))
            self.passed[other] = self.passed[other] + 1 if waits else 0

    def idle(self, now: float) -> bool:
        """Nobody counts on it, and its rate has nothing to remember."""
        return not self.users and (self._spent is None or self._spent.full(now))

    def _pace(self) -> tuple[float, float] | None:
        return None if self.bucket is None else (self.bucket.rate, self.bucket.burst)


def _strictest(key: str, asked: dict[Use, int]) -> Use | None:
    """Documents, or versions of one, may differ while their runs are under way: the least holds."""
    if len(asked) <= 1:
        return next(iter(asked), None)
    concurrency = min((use.concurrency for use in asked if use.concurrency is not None), default=None)
    rates = [(use.rate, use.burst) for use in asked if use.rate is not None]
    rate, burst = min(rates, key=lambda pace: pace[0], default=(None, None))
    return Use(key, concurrency, rate, burst)
