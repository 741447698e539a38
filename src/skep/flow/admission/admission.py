"""Which steps may go now: slots, priorities, fairness, limits and rates in one decision.

Whatever waits is either *ready*, in the line of its lane and short of nothing but a slot, or *parked* at the
one meter that keeps it back.  A meter lets as many out of its line as it has room for, so that a decision
looks at none in vain, however many wait.  `docs/decisions/0007-admission.md` says which bounds hold.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from operator import itemgetter

from skep.flow.admission.entries import Entry
from skep.flow.admission.fairness import LEAST_COST, Costs, FairLine
from skep.flow.admission.limits import LANES, Meter
from skep.flow.admission.meters import Meters
from skep.flow.admission.policies import Policies
from skep.flow.admission.priorities import PATIENCE, Lane, Lanes, ceiling
from skep.flow.admission.reasons import Scene, explain
from skep.flow.admission.tickets import Ticket
from skep.flow.runs import Reason

MOST_TRIALS = 5_000
"""So many are looked at in vain by one `admit`; the rest is for the next, which is due at once."""


class Admission:
    """At most `slots` steps at once.  Nothing here waits.  Times are those of `monotonic`; `clock` tells
    people the time of day.

    Raises:
        ValueError: fewer than one slot.
    """

    def __init__(
        self,
        slots: int,
        *,
        monotonic: Callable[[], float],
        policies: Policies,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if slots < 1:
            raise ValueError(f"{slots} slots; there must be one at least")
        self._slots = slots
        self._monotonic = monotonic
        self._clock = clock
        self._policies = policies
        self._lanes = Lanes(slots, policies.weight, LANES)
        self._open_to_all = ceiling(LANES - 1, slots)
        self._meters = Meters(policies)
        self._costs = Costs()
        self._running: dict[Ticket, Entry | None] = {}
        self._waiting: dict[Ticket, Entry] = {}
        self._numbers = count(1)
        self._stirred: dict[Meter, None] = {}
        self._unsettled = False
        """Somebody who waits might go; else nobody who waits can."""
        self._seen = -1
        self._recounted = 0
        self._now = 0.0
        self._adapt()

    def submit(self, ticket: Ticket) -> bool:
        """True: it goes at once, and is under way from now on.  Else it waits until `admit` answers it."""
        lane = self._lanes.all[ticket.priority]
        if (
            not (self._unsettled or lane.ready or ticket.uses)
            and (not self._meters.limiting or self._meters.spare(ticket))
            and (len(self._running) < self._open_to_all or lane.priority < self._lanes.open())
        ):
            self._running[ticket] = None
            lane.running += 1
            return True
        return self._arrive(ticket, lane)

    def withdraw(self, ticket: Ticket) -> None:
        """It does not want to go any more.  One that does not wait is passed over."""
        entry = self._waiting.pop(ticket, None)
        if entry is None:
            return
        self._tick()
        lane = self._lanes.all[ticket.priority]
        lane.waiting -= 1
        if entry.ready:
            lane.remove(entry)
            self._unready(entry)
        elif entry.parked is not None and entry.line is not None:
            entry.parked.parked -= 1
            entry.line.remove(entry)
        self._settle_cost(entry, 0.0)
        self._detach(entry)
        self._stir()

    def admit(self) -> list[Ticket]:
        """Who may go now, and is under way from now on.

        To be called after `finished` or `withdraw`, when policies have changed, and at `wake_at`.
        """
        if self._policies.version != self._seen:
            self._adapt()
        if self._unsettled or self._meters.next_due() is not None:
            return self._decide()
        return []

    def finished(self, ticket: Ticket, seconds: float) -> None:
        """It is under way no more, and took so long; 0: it never began, so that it cost nothing."""
        if ticket not in self._running:
            return
        entry = self._running.pop(ticket)
        self._lanes.all[ticket.priority].running -= 1
        if seconds > 0:
            self._costs.learn(ticket.code, seconds)
        if entry is not None:
            self._release(entry, seconds)
        if self._waiting and not self._unsettled:
            self._unsettled = any(lane.ready for lane in self._lanes.all)

    def wake_at(self) -> float | None:
        """When `admit` is to be called again though nothing happened: a rate lets somebody pass."""
        return self._monotonic() if self._unsettled else self._meters.next_due()

    def why(self, ticket: Ticket) -> Reason:
        """What keeps it back now; if several things do, a limit goes before a slot."""
        self._now = self._monotonic()
        scene = Scene(self._now, self._clock(), self._slots, self._lanes, self._running)
        return explain(ticket, self._waiting.get(ticket), scene)

    def depths(self) -> Mapping[int, int]:
        """How many wait, by priority."""
        return {lane.priority: lane.waiting for lane in self._lanes.all}

    # who comes

    def _arrive(self, ticket: Ticket, lane: Lane) -> bool:
        entry = self._waiting[ticket] = Entry(ticket, next(self._numbers), self._meters.version)
        lane.waiting += 1
        if self._meters.limiting or ticket.uses:
            self._tick()
            self._attach(entry)
            self._stir()
        settled = not self._unsettled
        kept_back = self._kept_back(entry, arriving=True)
        if kept_back is not None:
            self._park(entry, kept_back)
        elif settled and not lane.ready and lane.priority < self._lanes.open():
            self._grant(entry, lane, [lane])
            self._stir()
            return True
        else:
            self._make_ready(entry)
            self._unsettled = not settled
        return False

    def _kept_back(self, entry: Entry, *, arriving: bool) -> Meter | None:
        """The meter that lets no more pass than those that stand before the slots already.

        Who arrives stands behind those that wait; who has waited does not.
        """
        lane = entry.ticket.priority
        for meter in entry.meters:
            if arriving and meter.waits(lane):
                return meter
            if meter.ready[lane] >= meter.room(self._now, self._slots):
                return meter
        return None

    def _park(self, entry: Entry, meter: Meter) -> None:
        entry.parked, entry.turn = meter, False
        meter.parked += 1
        meter.line(entry.ticket.priority, self._policies.weight).push(entry)
        self._meters.note(meter, self._now)

    def _make_ready(self, entry: Entry) -> None:
        lane = entry.ticket.priority
        for meter in entry.meters:
            meter.ready[lane] += 1
        self._lanes.all[lane].push(entry)
        self._unsettled = True

    def _unready(self, entry: Entry) -> None:
        """It stands before the slots no more, so that another one might."""
        lane = entry.ticket.priority
        for meter in entry.meters:
            meter.ready[lane] -= 1
            if meter.parked:
                self._stirred[meter] = None

    # who goes

    def _decide(self) -> list[Ticket]:
        self._tick()
        self._stir()
        admitted: list[Ticket] = []
        trials = 0
        while trials < MOST_TRIALS:
            candidates = self._lanes.candidates()
            if not candidates:
                self._unsettled = False
                self._lanes.settled()
                break
            lane = self._lanes.choose(candidates)
            entry = lane.take()
            if self._try(entry, lane, candidates):
                admitted.append(entry.ticket)
            else:
                trials += 1
            self._stir()
        return admitted

    def _try(self, entry: Entry, lane: Lane, candidates: list[Lane]) -> bool:
        self._unready(entry)
        if entry.resolved != self._meters.version:
            self._detach(entry)
            self._attach(entry)
        for meter in entry.meters:
            if not meter.room(self._now, self._slots):
                self._park(entry, meter)
                return False
        self._grant(entry, lane, candidates)
        return True

    def _grant(self, entry: Entry, lane: Lane, candidates: list[Lane]) -> None:
        ticket = entry.ticket
        del self._waiting[ticket]
        self._running[ticket] = entry
        lane.waiting -= 1
        lane.running += 1
        self._lanes.granted(lane, candidates, entry.turn)
        self._charge(entry, lane.line)
        for meter in entry.meters:
            self._count(entry, meter)

    def _count(self, entry: Entry, meter: Meter) -> None:
        lane = entry.ticket.priority
        meter.holders[entry.ticket] = None
        if meter.bucket is not None:
            meter.bucket.take(self._now)
        meter.pass_by(lane)
        if meter.parked:
            self._stirred[meter] = None
            if (line := meter.lines[lane]) is not None:
                self._charge(entry, line)

    def _stir(self) -> None:
        """Let out of the lines of these meters as many as there is room for, the oldest first."""
        while self._stirred:
            meters, self._stirred = self._stirred, {}
            out = [(entry.number, entry, meter) for meter in meters for entry in self._let_out(meter)]
            for _, entry, meter in sorted(out, key=itemgetter(0)):
                if not self._goes_on(entry):
                    self._stirred[meter] = None  # there is room for another one
            for meter in meters:
                if meter.parked:
                    self._meters.note(meter, self._now)

    def _let_out(self, meter: Meter) -> Iterator[Entry]:
        for lane, line in enumerate(meter.lines):
            if line is None:
                continue
            turn = meter.passed[lane] >= PATIENCE and not meter.ready[lane]
            for _ in range(min(line.size, meter.room(self._now, self._slots) - meter.ready[lane])):
                entry = line.take()
                entry.parked, entry.turn, turn = None, turn, False
                meter.parked -= 1
                self._charge(entry, line)
                yield entry
            if not line.size:
                meter.lines[lane] = None

    def _goes_on(self, entry: Entry) -> bool:
        """It was let out of one line: it stands before the slots now, or in another line."""
        if entry.resolved != self._meters.version:
            self._detach(entry)
            self._attach(entry)
        kept_back = self._kept_back(entry, arriving=False)
        if kept_back is None:
            self._make_ready(entry)
            return True
        self._park(entry, kept_back)
        return False

    def _tick(self) -> None:
        """Look at the clock, and at those whose rates let somebody pass by now."""
        self._now = self._monotonic()
        self._stirred.update(dict.fromkeys(self._meters.due(self._now)))

    # who leaves

    def _release(self, entry: Entry, seconds: float) -> None:
        self._settle_cost(entry, max(seconds, LEAST_COST) if seconds > 0 else 0.0)
        if not entry.meters:
            return
        self._tick()
        for meter in entry.meters:
            del meter.holders[entry.ticket]
            if meter.parked:
                self._stirred[meter] = None
        self._detach(entry)
        self._stir()

    def _charge(self, entry: Entry, line: FairLine) -> None:
        """Count what it will probably cost, once per line."""
        if entry.charged and any(charged is line for charged, _ in entry.charged):
            return
        if not entry.cost:
            entry.cost = self._costs.estimate(entry.ticket.code)
        share = line.charge(entry.ticket.tenant, entry.cost)
        if share is not None:
            entry.charged = (*entry.charged, (line, share))

    def _settle_cost(self, entry: Entry, seconds: float) -> None:
        for line, share in entry.charged:
            line.settle(share, seconds - entry.cost)
        entry.charged = ()

    # which keys count

    def _attach(self, entry: Entry) -> None:
        self._stirred.update(dict.fromkeys(self._meters.attach(entry, self._now)))
        if self._meters.version != self._recounted:
            self._recount()
            entry.resolved = self._meters.version

    def _detach(self, entry: Entry) -> None:
        self._stirred.update(dict.fromkeys(self._meters.detach(entry, self._now)))

    def _adapt(self) -> None:
        """Follow the policies as they are now."""
        self._seen = self._policies.version
        self._now = self._monotonic()
        self._stirred.update(dict.fromkeys(self._meters.adapt(self._now)))
        self._recount()
        self._unsettled = bool(self._waiting)
        self._stir()

    def _recount(self) -> None:
        """What is under way may count on other keys than when it began."""
        self._recounted = self._meters.version
        for ticket, known in self._running.items():
            entry = known or Entry(ticket, 0)
            if entry.resolved == self._recounted and known:
                continue
            old = entry.meters, entry.asked
            for meter in entry.meters:
                del meter.holders[ticket]
            again = Entry(ticket, entry.number)
            again.charged, again.cost = entry.charged, entry.cost
            self._stirred.update(dict.fromkeys(self._meters.attach(again, self._now)))
            for meter in again.meters:
                meter.holders[ticket] = None
            entry.meters, entry.asked = old
            self._detach(entry)
            self._running[ticket] = again
        self._recounted = self._meters.version
