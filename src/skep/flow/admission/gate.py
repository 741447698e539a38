"""Locks and limits that runs hold from before their first step until they have ended.

Before each key runs stand in a line: who holds it, then who waits, by priority, then age.  A run is granted
all its keys at one instant, once its place in each of its lines is within the capacity that its claim and
those before it leave.  As all lines have the same order, nobody waits in a circle, and a run passes nobody
with whom it would share a key too many.  This serves one process; `storage.gate` does so for several.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import count

from msgspec import Struct

from skep.flow.runs import Claim, Reason
from skep.flow.steps import RunId

_FEW_NAMED = 3


class _Wish(Struct, frozen=True, eq=False):
    run: RunId
    capacities: dict[str, int]
    order: tuple[int, int]
    granted: Callable[[], None]


class _Line:
    """Before one key."""

    __slots__ = ("holders", "waiting")

    def __init__(self) -> None:
        self.holders: dict[RunId, int] = {}
        """With the capacity that each claimed."""
        self.waiting: list[tuple[tuple[int, int], RunId, int]] = []

    def within(self) -> Iterator[RunId]:
        """Those that wait and whose turn it is, as far as this key goes."""
        room, place = min(self.holders.values(), default=None), len(self.holders)
        for _, run, capacity in self.waiting:
            room = capacity if room is None else min(room, capacity)
            place += 1
            if place > room:
                return
            yield run

    def leave(self, wish: _Wish, capacity: int) -> None:
        if self.holders.pop(wish.run, None) is None:
            del self.waiting[bisect_left(self.waiting, (wish.order, wish.run, capacity))]

    def before(self, wish: _Wish) -> list[RunId]:
        return [run for order, run, _ in self.waiting if order < wish.order]


class RunGate:
    """Who holds which keys, among the runs of one process."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}
        self._wishes: dict[RunId, _Wish] = {}
        self._held: set[RunId] = set()
        self._ages = count()

    def request(
        self, run: RunId, claims: Sequence[Claim], priority: int, granted: Callable[[], None]
    ) -> None:
        """Call `granted` once the run has all of its keys: at once, if it may.

        A key that is claimed twice is held once, with the smaller capacity.  A run that asks again while it
        waits keeps its age; one that holds its keys is granted at once.
        """
        if not claims or run in self._held:
            granted()
            return
        known = self._wishes.get(run)
        if known is not None:
            self._leave(known)
        capacities = _capacities(claims)
        order = (priority, next(self._ages) if known is None else known.order[1])
        self._wishes[run] = _Wish(run, capacities, order, granted)
        for key, capacity in capacities.items():
            insort(self._lines.setdefault(key, _Line()).waiting, (order, run, capacity))
        self._grant(capacities.keys() | (known.capacities.keys() if known else set()))

    def release(self, run: RunId) -> None:
        """Give back all keys, or stop waiting for them.  Of a run without any it does nothing."""
        wish = self._wishes.pop(run, None)
        if wish is None:
            return
        self._held.discard(run)
        self._leave(wish)
        self._grant(wish.capacities.keys())

    def why(self, run: RunId) -> tuple[Reason, ...]:
        """What the run waits for, one reason per key that it cannot have now."""
        wish = self._wishes.get(run)
        if wish is None or run in self._held:
            return ()
        return tuple(
            _reason(wish, key, self._lines[key])
            for key in wish.capacities
            if run not in self._lines[key].within()
        )

    def holders(self, key: str) -> tuple[RunId, ...]:
        line = self._lines.get(key)
        return tuple(line.holders) if line else ()

    def _leave(self, wish: _Wish) -> None:
        for key, capacity in wish.capacities.items():
            line = self._lines[key]
            line.leave(wish, capacity)
            if not line.holders and not line.waiting:
                del self._lines[key]

    def _grant(self, keys: Collection[str]) -> None:
        """These lines have moved: whoever is first in all of its own now gets its keys.

        That moves nobody else forward, so that one look is enough.
        """
        lines = {key: set(self._lines[key].within()) for key in keys if key in self._lines}
        moved = [self._wishes[run] for run in set().union(*lines.values())]
        chosen = []
        for wish in sorted(moved, key=lambda wish: wish.order):
            for key in wish.capacities.keys() - lines.keys():
                lines[key] = set(self._lines[key].within())
            if all(wish.run in lines[key] for key in wish.capacities):
                chosen.append(wish)
        for wish in chosen:
            self._hold(wish)
        for wish in chosen:
            if self._wishes.get(wish.run) is wish:  # nobody has released it meanwhile
                wish.granted()

    def _hold(self, wish: _Wish) -> None:
        self._held.add(wish.run)
        for key, capacity in wish.capacities.items():
            line = self._lines[key]
            line.leave(wish, capacity)
            line.holders[wish.run] = capacity


def _capacities(claims: Sequence[Claim]) -> dict[str, int]:
    capacities: dict[str, int] = {}
    for claim in claims:
        capacities[claim.key] = min(claim.capacity, capacities.get(claim.key, claim.capacity))
    return dict(sorted(capacities.items()))


def _reason(wish: _Wish, key: str, line: _Line) -> Reason:
    capacity = wish.capacities[key]
    kind = "lock" if capacity == 1 else "limit"
    holders, before = tuple(line.holders), line.before(wish)
    if holders:
        message = f"{key} is held by {_runs(holders)}"
        message += "." if capacity == 1 else f": {len(holders)} of {capacity}."
        if before:
            message += f" {len(before)} more {'goes' if len(before) == 1 else 'go'} before it."
    else:
        message = f"{_runs(before)} {'waits' if len(before) == 1 else 'wait'} for {key} before it."
    return Reason(kind=kind, subject=key, message=message, holders=holders)


def _runs(runs: Sequence[RunId]) -> str:
    shown = ", ".join(f"run {run}" for run in runs[:_FEW_NAMED])
    return f"{shown} and {len(runs) - _FEW_NAMED} more" if len(runs) > _FEW_NAMED else shown
