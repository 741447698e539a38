"""The steps of a flow document as they are written."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from skep.documents import Path
from skep.flow.definition.durations import failures_of, priority_of, rate_of, seconds_of
from skep.flow.definition.expressions import INDEX, INPUT, ITEM, Expression, Reference, references
from skep.flow.definition.plan import Limit, RetryPolicy, WaitKind
from skep.flow.definition.shapes import Shapes

_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,98}[A-Za-z0-9_])?")
"""One that begins with a digit can be waited for, but not be referred to by `$`."""
_RESERVED = (INPUT, ITEM, INDEX)
_KINDS = ("use", "flow", "wait")
_OF_CODE = ("on", "limit", "retry", "timeout", "priority")
_OF_EACH = ("parallel", "failures")
KEYS = frozenset({*_KINDS, *_OF_CODE, *_OF_EACH, "with", "after", "when", "each", "as"})
_RETRY_KEYS = frozenset({"times", "first", "most", "budget"})
_LIMIT_KEYS = frozenset({"concurrency", "rate", "burst"})
_MOST_TRIES = 100
_UNTIL_THE_BUDGET_ENDS = 1_000_000
WAITS_FOR: Mapping[WaitKind, str] = {
    "signal": "name",
    "approval": "message",
    "until": "time",
    "for": "duration",
}
"""What each kind of wait is told in its `with:`."""


@dataclass(frozen=True)
class DraftEach:
    items: Expression
    parallel: int | None
    failures: float


@dataclass(frozen=True)
class DraftStep:
    """One of `use`, `flow` and `wait` is given; `carries` is the type of what a signal brings."""

    name: str
    use: str
    flow: str
    wait: WaitKind | None
    carries: str
    arguments: Mapping[str, Expression]
    each: DraftEach | None
    when: Expression | None
    on: Expression | None
    after: tuple[str, ...]
    limits: tuple[Limit, ...]
    retry: RetryPolicy | None
    timeout: float | None
    priority: int | None

    def expressions(self) -> Iterator[Expression]:
        """Everything in it that may refer to other steps."""
        yield from self.arguments.values()
        yield from (value for value in (self.on, self.when) if value is not None)
        yield from (limit.key for limit in self.limits)
        if self.each is not None:
            yield self.each.items

    @property
    def is_chosen_per_item(self) -> bool:
        """Its condition speaks of the item of its fan-out: it decides for each of them."""
        return self.each is not None and self.when is not None and any(map(_is_local, references(self.when)))


def _is_local(reference: Reference) -> bool:
    return reference.is_local


class StepShapes(Shapes):
    def step(self, name: str, value: object) -> DraftStep:
        path: Path = ("steps", name)
        body = self.mapping(value, path)
        self.known(body, KEYS, path)
        self._check_name(name, path)
        self._check_kind(body, path)
        after = self.list(body.get("after"), (*path, "after"))
        return DraftStep(
            name=name,
            use=self._named(body, "use", path),
            flow=self._named(body, "flow", path),
            wait=self._wait(body, path),
            carries=self._named(body, "as", path) or "object",
            arguments=self.expressions(body.get("with"), (*path, "with")),
            each=self._each(body, path),
            when=self.condition(body.get("when"), (*path, "when")),
            on=self.expression(body["on"], (*path, "on")) if "on" in body else None,
            after=tuple(
                self.text(item, (*path, "after", i), "'after' lists steps") for i, item in enumerate(after)
            ),
            limits=self._limits_of_step(body.get("limit"), (*path, "limit")),
            retry=self._retry(body.get("retry"), (*path, "retry")),
            timeout=self.amount(seconds_of, body.get("timeout"), (*path, "timeout")),
            priority=self.amount(priority_of, body.get("priority"), (*path, "priority")),
        )

    def _check_name(self, name: str, path: Path) -> None:
        if not _NAME.fullmatch(name) or name in _RESERVED:
            reason = f"use up to 100 letters, digits, '_' and '-', and not {', '.join(map(repr, _RESERVED))}"
            self.wrong(path, f"{name[:100]!r} cannot name a step; {reason}")

    def _check_kind(self, body: Mapping[str, object], path: Path) -> None:
        """Every key belongs to some kinds of step only."""
        if sum(kind in body for kind in _KINDS) != 1:
            self.wrong(path, "needs one of 'use' (a step), 'flow' (a sub-flow) and 'wait'")
            return
        if "flow" in body:
            self._refuse(body, _OF_CODE, "belongs to the steps of the sub-flow", path)
        if "wait" in body:
            self._refuse(body, [key for key in _OF_CODE if key != "timeout"], "means nothing to a wait", path)
        if body.get("wait") != "signal":
            self._refuse(body, ["as"], "is the type of what a signal carries ('wait: signal')", path)
        if "each" not in body:
            self._refuse(body, _OF_EACH, "belongs to a fan-out ('each: ...')", path)

    def _refuse(
        self, body: Mapping[str, object], keys: tuple[str, ...] | list[str], reason: str, path: Path
    ) -> None:
        for key in keys:
            if key in body:
                self.wrong((*path, key), f"{key!r} {reason}")

    def _named(self, body: Mapping[str, object], key: str, path: Path) -> str:
        return self.text(body[key], (*path, key), f"'{key}' needs a name") if key in body else ""

    def _wait(self, body: Mapping[str, object], path: Path) -> WaitKind | None:
        if "wait" not in body:
            return None
        return self.one_of(body["wait"], {kind: kind for kind in WAITS_FOR}, (*path, "wait"), "kind of wait")

    def _each(self, body: Mapping[str, object], path: Path) -> DraftEach | None:
        if "each" not in body:
            return None
        parallel = body.get("parallel")
        return DraftEach(
            items=self.expression(body["each"], (*path, "each")),
            parallel=None
            if parallel is None
            else self.count(parallel, (*path, "parallel"), "'parallel' is how many items at once"),
            failures=self.amount(failures_of, body.get("failures"), (*path, "failures")) or 0,
        )

    def _limits_of_step(self, value: object, path: Path) -> tuple[Limit, ...]:
        """`{key: 4, other: 100/s}`, or a list of keys whose limits are policies."""
        if isinstance(value, list):
            keys = [
                (self.text(key, (*path, i), "'limit' lists keys"), (*path, i)) for i, key in enumerate(value)
            ]
            return tuple(Limit(self.expression(key, place)) for key, place in keys)
        given = self.mapping(value, path)
        return tuple(self._limit(key, allowed, (*path, key)) for key, allowed in given.items())

    def _limit(self, key: str, allowed: object, path: Path) -> Limit:
        what = "'limit' is how many at once"
        expression = self.expression(key, path)
        if isinstance(allowed, str):
            return Limit(expression, rate=self.amount(rate_of, allowed, path))
        if not isinstance(allowed, dict):
            return Limit(expression, self.count(allowed, path, f"{what}, or a rate such as 100/s"))
        self.known(allowed, _LIMIT_KEYS, path)
        concurrency, burst = allowed.get("concurrency"), allowed.get("burst")
        return Limit(
            expression,
            None if concurrency is None else self.count(concurrency, (*path, "concurrency"), what),
            self.amount(rate_of, allowed.get("rate"), (*path, "rate")),
            None
            if burst is None
            else self.count(burst, (*path, "burst"), "'burst' is how many may come together"),
        )

    def _retry(self, value: object, path: Path) -> RetryPolicy | None:
        if value is None:
            return None
        if not isinstance(value, dict):
            return RetryPolicy(self._tries(value, path))
        self.known(value, _RETRY_KEYS, path)
        default = RetryPolicy()
        first, most, budget = (
            self.amount(seconds_of, value.get(key), (*path, key)) for key in ("first", "most", "budget")
        )
        if "times" not in value and budget is None:
            self.wrong(path, "'retry' needs 'times' or a 'budget'")
        times = self._tries(value["times"], (*path, "times")) if "times" in value else _UNTIL_THE_BUDGET_ENDS
        return RetryPolicy(times, first or default.first, most or max(default.most, first or 0.0), budget)

    def _tries(self, value: object, path: Path) -> int:
        return self.count(value, path, "'retry' is how often to try again", 0, _MOST_TRIES) or 0
