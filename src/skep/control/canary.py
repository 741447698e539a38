"""Whether what is new answers as well as what is old.  Pure: counts in, verdict out.

Counts only ever grow; one that became smaller began anew, and counts from zero.
"""

from collections.abc import Iterable

import msgspec

from skep.model.edge import EndpointTraffic
from skep.model.spec import ReleasePolicy

FEWEST = 20
"""Requests of each side below which a difference is chance."""
LEAST = 5.0
"""Milliseconds below which a difference is chance: HAProxy counts whole ones."""


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """What was answered: requests, those with a 5xx, and milliseconds that one took of late, on average."""

    requests: int = 0
    errors: int = 0
    latency: float = 0.0

    @property
    def error_rate(self) -> float:
        return self.errors / self.requests if self.requests else 0.0


class Sides(msgspec.Struct, frozen=True, kw_only=True):
    """Of one service what its new revision has answered, and what the others have."""

    new: Counters = Counters()
    old: Counters = Counters()


def sides(counted: Iterable[EndpointTraffic], revision: int) -> Sides:
    """All endpoints and hosts of one service together."""
    found = list(counted)
    return Sides(
        new=_together(one for one in found if one.revision == revision),
        old=_together(one for one in found if one.revision != revision),
    )


def since(before: Counters, after: Counters) -> Counters:
    """What was answered in between."""
    if after.requests < before.requests:
        return after
    return Counters(
        requests=after.requests - before.requests,
        errors=max(0, after.errors - before.errors),
        latency=after.latency,
    )


def fault(new: Counters, old: Counters, policy: ReleasePolicy) -> str:
    """What is worse than allowed, in words; "" if nothing is, or if there was too little to tell."""
    if new.requests < FEWEST:
        return ""
    if new.error_rate > old.error_rate + policy.max_error_rate:
        return (
            f"{new.errors} of {new.requests} requests failed ({new.error_rate:.1%}), "
            f"of the old revision {old.error_rate:.1%}; {policy.max_error_rate:.1%} more are allowed"
        )
    longest = max(old.latency * policy.max_latency, old.latency + LEAST)
    if old.requests >= FEWEST and new.latency > longest:
        return (
            f"an answer took {new.latency:.0f} ms, of the old revision {old.latency:.0f} ms; "
            f"{policy.max_latency:g} times as long is allowed"
        )
    return ""


def _together(counted: Iterable[EndpointTraffic]) -> Counters:
    """Times are weighed by requests."""
    found = list(counted)
    requests = sum(one.requests for one in found)
    milliseconds = sum(one.requests * one.response_time for one in found)
    return Counters(
        requests=requests,
        errors=sum(one.server_errors for one in found),
        latency=milliseconds / requests if requests else 0.0,
    )
