"""Whether what is new answers as well as what is old.  Pure: counts in, verdict out.

Counts only ever grow, by replica; a count that became smaller began anew, and counts from zero.
"""

from collections.abc import Collection, Mapping

import msgspec

from skep.model.ids import ReplicaId
from skep.model.spec import ReleasePolicy

FEWEST = 20
"""Requests of each side below which a difference is chance."""


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica has answered: requests, those with a 5xx or no answer, and seconds for all together."""

    requests: int = 0
    errors: int = 0
    seconds: float = 0.0

    @property
    def error_rate(self) -> float:
        return self.errors / self.requests if self.requests else 0.0

    @property
    def latency(self) -> float:
        return self.seconds / self.requests if self.requests else 0.0

    def __add__(self, other: "Counters") -> "Counters":
        return Counters(
            requests=self.requests + other.requests,
            errors=self.errors + other.errors,
            seconds=self.seconds + other.seconds,
        )


Counts = Mapping[ReplicaId, Counters]


def since(before: Counts, after: Counts, replicas: Collection[ReplicaId]) -> Counters:
    """What the replicas have answered together in between."""
    total = Counters()
    for replica in replicas:
        total += _grown(before.get(replica, Counters()), after.get(replica, Counters()))
    return total


def fault(new: Counters, old: Counters, policy: ReleasePolicy) -> str:
    """What is worse than allowed, in words; "" if nothing is, or if there was too little to tell."""
    if new.requests < FEWEST:
        return ""
    if new.error_rate > old.error_rate + policy.max_error_rate:
        return (
            f"{new.errors} of {new.requests} requests failed ({new.error_rate:.1%}), "
            f"of the old revision {old.error_rate:.1%}; {policy.max_error_rate:.1%} more are allowed"
        )
    if old.requests >= FEWEST and new.latency > old.latency * policy.max_latency:
        return (
            f"an answer took {new.latency * 1000:.0f} ms, of the old revision {old.latency * 1000:.0f} ms; "
            f"{policy.max_latency:g} times as long is allowed"
        )
    return ""


def _grown(before: Counters, after: Counters) -> Counters:
    if after.requests < before.requests:
        return after
    return Counters(
        requests=after.requests - before.requests,
        errors=max(0, after.errors - before.errors),
        seconds=max(0.0, after.seconds - before.seconds),
    )
