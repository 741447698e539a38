"""All meters that anybody counts on, and which of them a ticket counts on."""

from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import count

from skep.flow.admission.entries import Entry
from skep.flow.admission.limits import Meter
from skep.flow.admission.policies import AUTOMATIC, Policies, automatic_keys, prefixes
from skep.flow.admission.tickets import Ticket, Use

_FEW = 64
_MOST_REMEMBERED = 50_000


class Meters:
    """Meters come with the first entry that counts on them, and go when they have nothing to remember.

    A ticket counts on each key that its document names and on all keys above those, and, of the keys that all
    tickets have, on those that a policy limits or a document names.
    """

    def __init__(self, policies: Policies) -> None:
        self.version = 0
        """Grows when tickets may count on other keys than were found before."""
        self.limiting = False
        """Whether a ticket may be limited though its document names no limit."""
        self._policies = policies
        self._named = 0
        self._meters: dict[str, Meter] = {}
        self._due: list[tuple[float, int, Meter]] = []
        self._ties = count()
        self._sweep_at = _FEW
        self._spared: dict[tuple[str, str, str, str], tuple[int, bool]] = {}

    def spare(self, ticket: Ticket) -> bool:
        """Whether nothing limits tickets like this one; for those whose documents name no limits."""
        kind = (ticket.tenant, ticket.flow, ticket.code, ticket.route)
        found = self._spared.get(kind)
        if found is None or found[0] != self.version:
            if len(self._spared) >= _MOST_REMEMBERED:
                self._spared.clear()
            found = self._spared[kind] = (self.version, not self._keys(ticket))
        return found[1]

    def attach(self, entry: Entry, now: float) -> list[Meter]:
        """Find what the entry counts on; answers the meters whose limits have changed by that."""
        keys = self._keys(entry.ticket)
        if not keys:
            entry.meters, entry.asked, entry.resolved = (), (), self.version
            return []
        entry.meters = tuple([self._meter(key) for key in keys])
        entry.asked = tuple(keys.values())
        changed = [meter for meter, use in zip(entry.meters, entry.asked, strict=True) if meter.use(use, now)]
        if entry.ticket.uses:
            self._name(entry)
        entry.resolved = self.version
        return changed

    def detach(self, entry: Entry, now: float) -> list[Meter]:
        """It counts on nothing any more; answers the meters whose limits have changed by that."""
        changed = []
        for meter, use in zip(entry.meters, entry.asked, strict=True):
            if meter.unuse(use, now):
                changed.append(meter)
            if meter.idle(now):
                self._drop(meter)
        entry.meters, entry.asked = (), ()
        if len(self._meters) > self._sweep_at:
            self._sweep(now)
        return changed

    def adapt(self, now: float) -> list[Meter]:
        """The policies have changed; answers all meters that stay."""
        self.version += 1
        for meter in self._meters.values():
            meter.policy = self._policies.of(meter.key)
            meter.adjust(now)
        self.limiting = self._policies.limiting or self._named > 0
        return list(self._meters.values())

    def note(self, meter: Meter, now: float) -> None:
        """Some are parked there: look at it again when its rate lets the next one pass."""
        if meter.bucket is None or now >= (due := meter.bucket.due()):
            return
        if meter.due is None or due < meter.due:
            meter.due = due
            heappush(self._due, (due, next(self._ties), meter))

    def due(self, now: float) -> Iterator[Meter]:
        """Those that are to be looked at by now."""
        while self._due and self._due[0][0] <= now:
            meter = heappop(self._due)[2]
            meter.due = None
            yield meter

    def next_due(self) -> float | None:
        while self._due and not self._due[0][2].parked:
            heappop(self._due)[2].due = None
        return self._due[0][0] if self._due else None

    def __len__(self) -> int:
        return len(self._meters)

    def _keys(self, ticket: Ticket) -> dict[str, Use | None]:
        keys: dict[str, Use | None] = {}
        if self.limiting:
            for key in automatic_keys(ticket):
                keys.update(dict.fromkeys(self._policies.limited(key)))
                if self._named:
                    keys.update(dict.fromkeys(prefix for prefix in prefixes(key) if prefix in self._meters))
        for use in ticket.uses:
            for prefix in prefixes(use.key):
                keys.setdefault(prefix)
            keys[use.key] = use
        return keys

    def _meter(self, key: str) -> Meter:
        meter = self._meters.get(key)
        if meter is None:
            meter = self._meters[key] = Meter(key, self._policies.of(key))
        return meter

    def _name(self, entry: Entry) -> None:
        """Documents may limit keys that tickets have anyhow: then all of those count."""
        written = {prefix for use in entry.ticket.uses for prefix in prefixes(use.key)}
        for meter in entry.meters:
            if not meter.named and meter.key in written and meter.key.partition("/")[0] in AUTOMATIC:
                meter.named = self.limiting = True
                self._named += 1
                self.version += 1

    def _drop(self, meter: Meter) -> None:
        if self._meters.get(meter.key) is meter:
            del self._meters[meter.key]
            if meter.named:
                self._named -= 1
                self.limiting = self._policies.limiting or self._named > 0

    def _sweep(self, now: float) -> None:
        """Meters whose rates had something to remember when they were left."""
        for meter in [meter for meter in self._meters.values() if meter.idle(now)]:
            self._drop(meter)
        self._sweep_at = 2 * len(self._meters) + _FEW
