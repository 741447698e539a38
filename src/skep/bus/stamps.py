"""On whose behalf something is asked of a host, so that a host can refuse who has been replaced.

The flow engine's dispatch sets the stamp of a step for as long as its code runs; the leading reconciler sets
its own.  Whoever calls a host's ports meanwhile sends it along.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import msgspec

LEADER = "reconciler"


class Stamp(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One try of a step of a run; without a run, the reconciler that led in this epoch."""

    run: str = ""
    step: str = ""
    epoch: int = 1
    round: int = 0
    undoing: bool = False
    attempt: int = 1

    @property
    def fence(self) -> tuple[str, str]:
        """What it takes turns on: of two stamps with the same one the higher rank is in the right."""
        return self.run, self.step

    @property
    def rank(self) -> tuple[int, int, int, int]:
        """Grows with every change of hands, every round, from do to undo, and every try."""
        return self.epoch, self.round, int(self.undoing), self.attempt


def leader(epoch: int) -> Stamp:
    """The stamp of level-triggered calls, which no run asked for."""
    return Stamp(step=LEADER, epoch=epoch)


_current: ContextVar[Stamp | None] = ContextVar("stamp", default=None)


def current_stamp() -> Stamp | None:
    return _current.get()


@contextmanager
def stamped(stamp: Stamp | None) -> Iterator[None]:
    """Calls that are made meanwhile, also by tasks begun meanwhile, carry the stamp, or none."""
    token = _current.set(stamp)
    try:
        yield
    finally:
        _current.reset(token)
