"""A slow second opinion on admission: it keeps its own books, and looks at everybody after every decision."""

from collections import defaultdict

from skep.flow.admission.admission import Admission
from skep.flow.admission.policies import Policies, Policy, automatic_keys, prefixes
from skep.flow.admission.priorities import PATIENCE, ceiling
from skep.flow.admission.tickets import Ticket, Use
from skep.flow.steps import RunId

OVERTAKEN = 5
"""Times that a step may be overtaken by an equal one, over all that happens in a test."""


def ticket(
    number: int = 0,
    *,
    tenant: str = "acme",
    priority: int = 2,
    limits: tuple[Use, ...] = (),
    code: str = "build",
    flow: str = "release",
    route: str = "",
) -> Ticket:
    return Ticket(RunId(f"r{number}"), "s", tenant, flow, code, route, priority, None, limits)


class Rate:
    """Tokens of one key, counted in the plainest way."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate, self.burst, self.tokens, self.at = rate, burst, burst, now

    def pass_time(self, now: float) -> None:
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate)
        self.at = now

    def change(self, rate: float, burst: float, now: float) -> None:
        """What is missing stays missing."""
        self.pass_time(now)
        missing = self.burst - self.tokens
        self.rate, self.burst, self.tokens = rate, burst, burst - missing


class World:
    """Admission, with everything that is under way or waits, in the order of asking."""

    def __init__(self, slots: int, policies: dict[str, Policy] | None = None) -> None:
        self.now = 1000.0
        self.slots = slots
        self.policies = Policies(policies or {})
        self.admission = Admission(
            slots, monotonic=lambda: self.now, policies=self.policies, clock=lambda: 0.0
        )
        self.running: list[Ticket] = []
        self.waiting: list[Ticket] = []
        self.rates: dict[str, Rate] = {}
        self.overtaken: dict[Ticket, int] = defaultdict(int)
        self.passed: dict[int, int] = defaultdict(int)

    def submit(self, ticket: Ticket) -> bool:
        self.waiting.append(ticket)
        self._follow()
        if self.admission.submit(ticket):
            self._begins(ticket)
            return True
        return False

    def finish(self, ticket: Ticket, seconds: float = 1.0) -> list[Ticket]:
        self.running.remove(ticket)
        self._follow()
        self.admission.finished(ticket, seconds)
        return self.admit()

    def withdraw(self, ticket: Ticket) -> list[Ticket]:
        self.waiting.remove(ticket)
        self._follow()
        self.admission.withdraw(ticket)
        return self.admit()

    def put(self, key: str, policy: Policy | None) -> list[Ticket]:
        self.policies.set(key, policy)
        self._follow()
        return self.admit()

    def wait(self, seconds: float) -> list[Ticket]:
        """Time passes, and whoever is due is woken in time."""
        end, admitted = self.now + seconds, list[Ticket]()
        while (due := self.admission.wake_at()) is not None and due <= end:
            self.now = max(self.now, due)
            admitted += self.admit()
        self.now = end
        return admitted + self.admit()

    def admit(self) -> list[Ticket]:
        admitted = self.admission.admit()
        for ticket in admitted:
            self._begins(ticket)
        self._nobody_was_forgotten()
        return admitted

    def finish_everything(self) -> None:
        """Whoever is under way ends, the oldest first, until nobody waits."""
        while self.running or self.waiting:
            if self.running:
                self.finish(self.running[0], 0.5)
            else:
                due = self.admission.wake_at()
                assert due is not None, f"nobody goes and nobody will: {self.waiting}"
                self.wait(due - self.now)

    def keys(self, ticket: Ticket) -> set[str]:
        own = (*automatic_keys(ticket), *(use.key for use in ticket.uses))
        return {prefix for key in own for prefix in prefixes(key)}

    def holders(self, key: str) -> int:
        return sum(key in self.keys(other) for other in self.running)

    def blocked(self, ticket: Ticket, *, surely: bool = True) -> bool:
        """Whether any limit or rate is in its way; else a token that is nearly there is not."""
        token = 1 - 1e-6 if surely else 1 + 1e-6
        if not self.policies.all() and not any(other.uses for other in (*self.running, *self.waiting)):
            return False
        for use in self._limits(ticket):
            if use.concurrency is not None and self.holders(use.key) >= use.concurrency:
                return True
            if use.rate is not None and self._rate(use).tokens < token:
                return True
        return False

    def open(self, priority: int) -> bool:
        """Whether the lane may take one more slot."""
        below = (sum(other.priority >= lane for other in self.running) for lane in range(priority + 1))
        return all(used < ceiling(lane, self.slots) for lane, used in enumerate(below))

    def _limits(self, ticket: Ticket) -> list[Use]:
        return [self._limit(key) for key in self.keys(ticket)]

    def _limit(self, key: str) -> Use:
        """By policy and by the documents of all that wait or are under way, the least of them."""
        asked = [use for other in (*self.running, *self.waiting) for use in other.uses if use.key == key]
        policy = self.policies.of(key)
        allowed = [use.concurrency for use in asked if use.concurrency is not None]
        concurrency = min(allowed, default=None) if policy.concurrency is None else policy.concurrency
        rate, burst = min(((use.rate, use.burst) for use in asked if use.rate), default=(None, None))
        if policy.rate is not None:
            rate, burst = policy.rate, policy.burst
        return Use(key, concurrency, rate, burst if policy.burst is None else policy.burst)

    def _follow(self) -> None:
        """Rates change at the moment at which somebody says so, not when they are looked at next."""
        for key in self.rates:
            use = self._limit(key)
            if use.rate is not None:
                self._rate(use)

    def _rate(self, use: Use) -> Rate:
        assert use.rate is not None
        burst = max(1.0, use.rate) if use.burst is None else use.burst
        known = self.rates.setdefault(use.key, Rate(use.rate, burst, self.now))
        if (known.rate, known.burst) != (use.rate, burst):
            known.change(use.rate, burst, self.now)
        known.pass_time(self.now)
        return known

    def _begins(self, ticket: Ticket) -> None:
        assert self.open(ticket.priority)
        assert not self.blocked(ticket)
        self._count_who_is_overtaken(ticket)
        self._count_who_is_passed(ticket)
        self.waiting.remove(ticket)
        self.running.append(ticket)
        for use in self._limits(ticket):
            if use.rate is not None:
                self._rate(use).tokens -= 1

    def _count_who_is_passed(self, chosen: Ticket) -> None:
        for lane in range(5):
            could = lane != chosen.priority and self.open(lane) and self._has_work(lane)
            self.passed[lane] = self.passed[lane] + 1 if could else 0
            assert self.passed[lane] <= PATIENCE + 3

    def _count_who_is_overtaken(self, chosen: Ticket) -> None:
        """Equal steps go in the order of asking; where several keys come free at once one may slip by."""
        for older in self.waiting[: self.waiting.index(chosen)]:
            if _alike(chosen, older):
                self.overtaken[older] += 1
                assert self.overtaken[older] <= (OVERTAKEN if len(self._in_force(older)) > 1 else 0)

    def _in_force(self, ticket: Ticket) -> list[Use]:
        limits = self._limits(ticket)
        return [use for use in limits if use.concurrency is not None or use.rate is not None]

    def _has_work(self, lane: int) -> bool:
        """Work that no limit keeps back."""
        return any(other.priority == lane and not self.blocked(other, surely=False) for other in self.waiting)

    def _nobody_was_forgotten(self) -> None:
        for other in self.waiting:
            assert self.blocked(other, surely=False) or not self.open(other.priority), f"{other} could go"
        for lane in range(5):
            if not self._has_work(lane):
                self.passed[lane] = 0


def _alike(one: Ticket, other: Ticket) -> bool:
    return (one.tenant, one.flow, one.code, one.route, one.priority, one.uses) == (
        other.tenant,
        other.flow,
        other.code,
        other.route,
        other.priority,
        other.uses,
    )
