"""Limits and weights that operators set, by key.

Keys are paths: what counts on `tenant/acme/builds` also counts on `tenant/acme` and on `tenant`.  A segment
`*` stands for any one: `tenant/*` is a policy for each tenant of its own.  Where several policies fit a key,
each field comes from the most exact one that gives it, and from the flow's document if none does.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType

from msgspec import Struct

from skep.flow.admission.tickets import Ticket, Use

LONGEST_KEY = 512
_MOST_REMEMBERED = 50_000


class Policy(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an operator allows for a key; None leaves it to the next less exact policy.

    Raises:
        ValueError: a number is out of its range; the message says which.
    """

    concurrency: int | None = None
    """So many at once; 0 lets nobody pass."""
    rate: float | None = None
    """So many begin per second."""
    burst: float | None = None
    """So many may begin at once after a pause; default one second's worth, at least 1."""
    weight: float | None = None
    """Of a tenant (`tenant/acme`): its share of time in proportion to the others; default 1."""

    def __post_init__(self) -> None:
        if self.concurrency is not None and self.concurrency < 0:
            raise ValueError(f"concurrency is {self.concurrency}; it must be 0 or more")
        if self.rate is not None and not 0 < self.rate < float("inf"):
            raise ValueError(f"rate is {self.rate}; it must be more than 0 per second")
        if self.burst is not None and not 1 <= self.burst < float("inf"):
            raise ValueError(f"burst is {self.burst}; it must be 1 or more")
        if self.weight is not None and not 0 < self.weight < float("inf"):
            raise ValueError(f"weight is {self.weight}; it must be more than 0")

    @property
    def limits(self) -> bool:
        return self.concurrency is not None or self.rate is not None


NONE = Policy()


class Policies:
    """The policies in force.  `version` grows with each change; who admits follows at its next `admit`."""

    def __init__(self, policies: Mapping[str, Policy] = MappingProxyType({})) -> None:
        self.version = 0
        self._policies: dict[str, Policy] = {}
        self._patterns: list[tuple[tuple[str, ...], Policy]] = []
        self._effective: dict[str, Policy] = {}
        self._limited: dict[str, tuple[str, ...]] = {}
        self._weights: dict[str, float] = {}
        for key, policy in policies.items():
            check_key(key)
            self._policies[key] = policy
        self._changed()

    def set(self, key: str, policy: Policy | None) -> None:
        """Put the policy in force for the key; None removes the one there is.

        Raises:
            ValueError: that is no key.
        """
        check_key(key)
        if policy is None:
            self._policies.pop(key, None)
        else:
            self._policies[key] = policy
        self._changed()

    def all(self) -> dict[str, Policy]:
        """As they were set, by key."""
        return dict(sorted(self._policies.items()))

    def of(self, key: str) -> Policy:
        """What is in force for this very key, of the exact policy and of those with `*` that fit."""
        found = self._effective.get(key)
        if found is None:
            if len(self._effective) >= _MOST_REMEMBERED:
                self._effective.clear()
            found = self._effective[key] = _merge(self._fitting(key))
        return found

    def limited(self, key: str) -> tuple[str, ...]:
        """The key and those above it, as far as a policy limits them; the widest first."""
        found = self._limited.get(key)
        if found is None:
            if len(self._limited) >= _MOST_REMEMBERED:
                self._limited.clear()
            found = tuple(prefix for prefix in prefixes(key) if self.of(prefix).limits)
            self._limited[key] = found
        return found

    def weight(self, tenant: str) -> float:
        weight = self._weights.get(tenant)
        if weight is None:
            if len(self._weights) >= _MOST_REMEMBERED:
                self._weights.clear()
            weight = self._weights[tenant] = self.of(f"tenant/{tenant}").weight or 1.0
        return weight

    def limits_of(self, ticket: Ticket) -> tuple[Use, ...]:
        """Everything that limits the ticket, by policy or by its document, as it is in force now."""
        asked = {use.key: use for use in ticket.uses}
        counted = [prefix for key in (*automatic_keys(ticket), *asked) for prefix in prefixes(key)]
        found = (allowance(self.of(key), asked.get(key), key) for key in dict.fromkeys(counted))
        return tuple(use for use in found if use.concurrency is not None or use.rate is not None)

    @property
    def limiting(self) -> bool:
        """Whether any of them limits anything."""
        return self._limiting

    def _fitting(self, key: str) -> Iterator[Policy]:
        if key in self._policies:
            yield self._policies[key]
        segments = tuple(key.split("/"))
        for pattern, policy in self._patterns:
            if len(pattern) == len(segments) and all(
                wanted in ("*", segment) for wanted, segment in zip(pattern, segments, strict=True)
            ):
                yield policy

    def _changed(self) -> None:
        patterns = [(tuple(key.split("/")), policy) for key, policy in self._policies.items() if "*" in key]
        self._patterns = sorted(patterns, key=lambda pattern: [segment == "*" for segment in pattern[0]])
        self._limiting = any(policy.limits for policy in self._policies.values())
        for remembered in (self._effective, self._limited, self._weights):
            remembered.clear()
        self.version += 1


def allowance(policy: Policy, use: Use | None, key: str) -> Use:
    """What is in force for a key by the policy and, where that says nothing, by the document."""
    asked = use or Use(key)
    concurrency = asked.concurrency if policy.concurrency is None else policy.concurrency
    if policy.rate is not None:
        return Use(key, concurrency, policy.rate, policy.burst)
    return Use(key, concurrency, asked.rate, asked.burst if policy.burst is None else policy.burst)


def automatic_keys(ticket: Ticket) -> Iterator[str]:
    """What a ticket counts on without being told to."""
    if ticket.tenant:
        yield f"tenant/{ticket.tenant}"
    yield f"flow/{ticket.flow}"
    yield f"step/{ticket.code}"
    if ticket.route:
        yield f"host/{ticket.route}"


AUTOMATIC = frozenset({"tenant", "flow", "step", "host"})
"""First segments of the keys that tickets have anyhow."""


@lru_cache(maxsize=16_384)
def prefixes(key: str) -> tuple[str, ...]:
    """`a/b/c` → `a`, `a/b`, `a/b/c`."""
    segments = key.split("/")
    return tuple("/".join(segments[: length + 1]) for length in range(len(segments)))


def check_key(key: str) -> None:
    """Raises ValueError if operators may not set a policy for it."""
    if not key or len(key) > LONGEST_KEY or not all(key.split("/")):
        raise ValueError(
            f"{key[:80]!r} is no key: it must be names joined by '/', {LONGEST_KEY} long at most"
        )


def _merge(policies: Iterator[Policy]) -> Policy:
    merged = NONE
    for policy in policies:
        rated = merged.rate is not None
        merged = Policy(
            concurrency=policy.concurrency if merged.concurrency is None else merged.concurrency,
            rate=merged.rate if rated else policy.rate,
            burst=merged.burst if rated or merged.burst is not None else policy.burst,
            weight=policy.weight if merged.weight is None else merged.weight,
        )
    return merged
