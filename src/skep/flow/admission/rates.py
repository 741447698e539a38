"""Token buckets, exact and without a clock of their own."""


class Bucket:
    """Holds up to `burst` tokens and gains `rate` a second; kept as the moment at which it is full again."""

    __slots__ = ("_full_at", "burst", "rate")

    def __init__(self, rate: float, burst: float | None) -> None:
        self.rate = rate
        self.burst = max(1.0, rate) if burst is None else burst
        self._full_at = float("-inf")

    def due(self) -> float:
        """The moment from which on a token is there."""
        return self._full_at - (self.burst - 1) / self.rate

    def tokens(self, now: float) -> int:
        """Whole tokens; at least one from `due` on, whatever rounding says."""
        if now < self.due():
            return 0
        return max(1, int(self.burst - max(0.0, self._full_at - now) * self.rate))

    def take(self, now: float) -> None:
        self._full_at = max(self._full_at, now) + 1 / self.rate

    def full(self, now: float) -> bool:
        return now >= self._full_at

    def change(self, rate: float, burst: float | None, now: float) -> None:
        """From now on another rate; what is missing in the bucket stays missing."""
        if (rate, max(1.0, rate) if burst is None else burst) == (self.rate, self.burst):
            return
        missing = max(0.0, self._full_at - now) * self.rate
        self.rate = rate
        self.burst = max(1.0, rate) if burst is None else burst
        self._full_at = now + missing / rate if missing else float("-inf")
