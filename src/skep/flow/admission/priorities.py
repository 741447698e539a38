"""Five lanes that are served in parallel, one per priority, and who of them gets a slot.

Higher lanes go first, within these bounds:

- Work of a lane and of those below it never takes all slots: some are kept for the lanes above (`ceiling`),
  so that long bulk steps leave urgent ones their way.
- A lane that has fewer than its reserved slots gets the next one that is free (`reserved`).
- A lane that was passed by `PATIENCE` times gets the next slot, in the order of how often it was.
"""

from collections import deque
from collections.abc import Callable

from skep.flow.admission.entries import Entry
from skep.flow.admission.fairness import FairLine

PATIENCE = 16
"""Grants to others while a lane has work that may go; with several such lanes three more."""
TURN_EVERY = 4
"""At most one of so many grants goes to an entry because of a key's turn."""


class Lane:
    """The work of one priority: `line` holds what waits for nothing but a slot."""

    __slots__ = ("ceiling", "line", "passed", "priority", "ready", "reserved", "running", "turns", "waiting")

    def __init__(self, priority: int, slots: int, weight: Callable[[str], float]) -> None:
        self.priority = priority
        self.ceiling = ceiling(priority, slots)
        """So many slots at most for this lane and those below it together."""
        self.reserved = slots // 16
        self.running = 0
        self.waiting = 0
        """All that wait, for whatever."""
        self.ready = 0
        """Those among them that wait for a slot only."""
        self.passed = 0
        self.line = FairLine(weight)
        self.turns: deque[Entry] = deque()
        """Those whose turn it is by a key, before all others of the lane."""

    def push(self, entry: Entry) -> None:
        self.ready += 1
        entry.ready = True
        if entry.turn:
            self.turns.append(entry)
        else:
            self.line.push(entry)

    def take(self) -> Entry:
        self.ready -= 1
        entry = self.turns.popleft() if self.turns else self.line.take()
        entry.ready = False
        return entry

    def remove(self, entry: Entry) -> None:
        self.ready -= 1
        entry.ready = False
        if entry.line is None:
            self.turns.remove(entry)
        else:
            self.line.remove(entry)


class Lanes:
    """Who gets the next slot."""

    __slots__ = ("_since_turn", "_slots", "all")

    def __init__(self, slots: int, weight: Callable[[str], float], lanes: int) -> None:
        self._slots = slots
        self._since_turn = 0
        self.all = tuple(Lane(priority, slots, weight) for priority in range(lanes))

    def open(self) -> int:
        """So many lanes, from the top, may take one more slot now."""
        running, opened = 0, len(self.all)
        for lane in reversed(self.all):
            running += lane.running
            if running >= lane.ceiling:
                opened = lane.priority
        return opened

    def settled(self) -> None:
        """Nobody who waits may go: a lane that has nothing ready is not passed by."""
        for lane in self.all:
            if not lane.ready:
                lane.passed = 0

    def candidates(self) -> list[Lane]:
        """The lanes that have work and may take a slot, the highest first."""
        return [lane for lane in self.all[: self.open()] if lane.ready]

    def choose(self, candidates: list[Lane]) -> Lane:
        """Which of them gets the slot; there is at least one."""
        if len(candidates) == 1:
            return candidates[0]
        longest = max(reversed(candidates), key=lambda lane: lane.passed)
        if longest.passed >= PATIENCE:
            return longest
        if self._since_turn >= TURN_EVERY - 1:
            for lane in reversed(candidates):
                if lane.turns:
                    return lane
        for lane in candidates:
            if lane.running < lane.reserved:
                return lane
        return candidates[0]

    def granted(self, chosen: Lane, candidates: list[Lane], turn: bool) -> None:
        """The slot was given: the other candidates have been passed by."""
        self._since_turn = 0 if turn else self._since_turn + 1
        for lane in candidates:
            lane.passed += 1
        chosen.passed = 0


def ceiling(priority: int, slots: int) -> int:
    """How many of the slots a lane and those below it may have together.

    A quarter is kept from bulk, an eighth from low and bulk, one of each if there are two slots at least;
    a sixteenth from normal and below, one of 32 from high and below.
    """
    if slots < 2:
        return slots
    kept = (0, slots // 32, slots // 16, max(1, slots // 8), max(1, slots // 4))
    return slots - kept[priority]
