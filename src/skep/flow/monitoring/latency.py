"""How long things took, as Prometheus counts it; made for the hot path."""

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
"""Upper bounds of the buckets in seconds; what takes longer is in the last one, which has none."""


class Latency:
    """A histogram.  To add to it is one bisection; whoever reads it makes the rest of it."""

    __slots__ = ("buckets", "total")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    @property
    def count(self) -> int:
        return sum(self.buckets)

    def cumulated(self) -> list[tuple[str, float]]:
        """Upper bounds and how many did not take longer, as the exposition format wants them."""
        bounds = [*(str(float(bound)) for bound in BOUNDS), "+Inf"]
        return list(zip(bounds, map(float, accumulate(self.buckets)), strict=True))

    @classmethod
    def sum_of(cls, parts: Iterable["Latency"]) -> "Latency":
        whole = cls()
        for part in parts:
            whole.total += part.total
            whole.buckets = [mine + its for mine, its in zip(whole.buckets, part.buckets, strict=True)]
        return whole
