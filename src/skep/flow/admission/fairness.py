"""Tenants that wait in one line share what there is by what it costs: start-time fair queueing.

Each tenant has a tag, the time that it has had divided by its weight; whoever has the least goes next.  A
tenant that did not wait begins where the others are: it saves nothing up.  So of two that wait all the time
none gets ahead by more than what its longest step takes (Goyal, Vin, Cheng: Start-time Fair Queuing, 1996),
times the number of its steps under way at once, for what these cost is only an estimate until they end.
"""

from collections.abc import Callable
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count

from skep.flow.admission.entries import Entry

LEAST_COST = 1e-4
"""Seconds; even what takes no time takes a turn."""
_SMOOTHING = 0.2
_MOST_CODES = 20_000


class Costs:
    """Seconds that a step takes, by its code: a moving average of what was measured."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def learn(self, code: str, seconds: float) -> None:
        known = self._seconds.get(code)
        if known is None:
            if len(self._seconds) >= _MOST_CODES:
                self._seconds.clear()
            self._seconds[code] = seconds
        else:
            self._seconds[code] = known + _SMOOTHING * (seconds - known)

    def estimate(self, code: str) -> float:
        return max(LEAST_COST, self._seconds.get(code, LEAST_COST))


class Share:
    """What one tenant has had of one line."""

    __slots__ = ("entries", "live", "place", "tag", "tenant", "under_way")

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.tag = 0.0
        self.entries: list[tuple[int, Entry]] = []
        self.live = 0
        self.under_way = 0
        self.place: tuple[float, int, Share] | None = None
        """Its place in the order of tenants; None if it is not in it."""


class FairLine:
    """Entries that wait: first come, first served within a tenant, fair among tenants."""

    __slots__ = ("_order", "_shares", "_ties", "_weight", "now", "size")

    def __init__(self, weight: Callable[[str], float]) -> None:
        self.size = 0
        self.now = 0.0
        """Where the tenants that are served are."""
        self._weight = weight
        self._shares: dict[str, Share] = {}
        self._order: list[tuple[float, int, Share]] = []
        self._ties = count()

    def push(self, entry: Entry) -> None:
        """Stand in line by age: one that was here before gets its place back."""
        share = self._share(entry.ticket.tenant)
        if not share.live and share.tag < self.now:
            share.tag = self.now
        heappush(share.entries, (entry.number, entry))
        share.live += 1
        self.size += 1
        entry.line = self
        if share.place is None:
            self._list(share)

    def take(self) -> Entry:
        """Out of the line goes the one whose turn it is; IndexError if there is none."""
        share = self._first()
        self.now = max(self.now, share.tag)
        while True:
            entry = heappop(share.entries)[1]
            if entry.line is self:
                break
        self._left(share, entry)
        return entry

    def remove(self, entry: Entry) -> None:
        """It waits no more and does not come back; its place is cleared away later."""
        share = self._shares[entry.ticket.tenant]
        self._left(share, entry)
        if len(share.entries) > 2 * share.live + 16:
            share.entries = [item for item in share.entries if item[1].line is self]
            heapify(share.entries)

    def charge(self, tenant: str, cost: float) -> Share | None:
        """Count the cost, in seconds; None if nobody waits, so that there is nothing to share."""
        if not self.size:
            return None
        share = self._share(tenant)
        share.tag = max(share.tag, self.now) + cost / self._weight(tenant)
        share.under_way += 1
        if share.place is None:
            self._list(share)
        return share

    def settle(self, share: Share, error: float) -> None:
        """A step that was charged has ended, and cost so many seconds more than it was charged."""
        share.under_way -= 1
        share.tag += error / self._weight(share.tenant)
        if self._shares.get(share.tenant) is share and (error < 0 or share.place is None):
            self._list(share)

    def before(self, tenant: str) -> list[str]:
        """The tenants that wait here and have had less."""
        mine = self._shares.get(tenant)
        if mine is None:
            return []
        return [share.tenant for share in self._shares.values() if share.live and _goes_before(share, mine)]

    def waits_before(self, entry: Entry) -> int:
        """How many older ones of its tenant wait here."""
        share = self._shares.get(entry.ticket.tenant)
        older = share.entries if share else ()
        return sum(number < entry.number and other.line is self for number, other in older)

    @property
    def tenants(self) -> int:
        """About so many something is remembered."""
        return len(self._shares)

    def _share(self, tenant: str) -> Share:
        share = self._shares.get(tenant)
        if share is None:
            share = self._shares[tenant] = Share(tenant)
            share.tag = self.now
        return share

    def _left(self, share: Share, entry: Entry) -> None:
        entry.line = None
        share.live -= 1
        self.size -= 1
        if not self.size:  # nobody has to be fair to anybody: whoever comes next begins anew
            self._shares.clear()
            self._order.clear()

    def _list(self, share: Share) -> None:
        share.place = (share.tag, next(self._ties), share)
        heappush(self._order, share.place)

    def _first(self) -> Share:
        """The tenant whose turn it is.  Places that are out of date are put right on the way."""
        order = self._order
        while True:
            place = order[0]
            share = place[2]
            if place is not share.place:
                heappop(order)
            elif place[0] < share.tag:
                share.place = (share.tag, next(self._ties), share)
                heapreplace(order, share.place)
            elif not share.live:
                heappop(order)
                self._retire(share)
            else:
                return share

    def _retire(self, share: Share) -> None:
        """All others have had as much as this one, which waits for nothing: it is remembered no longer."""
        share.place = None
        if not share.under_way:
            self.now = max(self.now, share.tag)
            del self._shares[share.tenant]


def _goes_before(one: Share, other: Share) -> bool:
    if one is other or one.place is None or other.place is None:
        return False
    return (one.tag, one.place[1]) < (other.tag, other.place[1])
