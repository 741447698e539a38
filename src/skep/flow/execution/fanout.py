"""A fan-out while it goes on: the steps of `Each`, once per item."""

from collections.abc import Iterator, Sequence

from skep.flow.definition.plan import Each, PlannedStep


class Body:
    """The steps of one item as a graph of their own, shared by all items and runs of a plan."""

    def __init__(self, name: str, each: Each) -> None:
        self.each = each
        self.steps = each.steps
        self.index = {step.name: position for position, step in enumerate(each.steps)}
        self.counts = [len(step.after) for step in each.steps]
        followers: list[list[int]] = [[] for _ in each.steps]
        for position, step in enumerate(each.steps):
            for before in step.after:
                followers[before].append(position)
        self.successors = followers
        self.suffixes = [step.name.removeprefix(name) for step in each.steps]
        self.positions = {suffix: position for position, suffix in enumerate(self.suffixes)}


class Scope:
    """One item: its steps are the nodes from `base` on."""

    __slots__ = ("base", "dropped", "fanout", "inner", "item", "left", "number", "unwinding")

    def __init__(self, fanout: "FanOut", number: int, item: object, base: int) -> None:
        self.fanout = fanout
        self.number = number
        self.item = item
        self.base = base
        self.left = len(fanout.body.steps)
        self.dropped = False
        """It has failed, and the fan-out goes on without it."""
        self.unwinding = False
        self.inner: list[FanOut] | None = None

    @property
    def parent(self) -> "Scope | None":
        return self.fanout.scope

    def nodes(self) -> Iterator[int]:
        """The indexes of its steps and of those of fan-outs within."""
        yield from range(self.base, self.base + len(self.fanout.body.steps))
        for fanout in self.inner or ():
            yield from fanout.nodes()

    def within(self) -> "Iterator[Scope]":
        """The items of fan-outs within."""
        for fanout in self.inner or ():
            for scope in fanout.scopes:
                yield scope
                yield from scope.within()


class FanOut:
    """A node that has fanned out.  Items are opened one after another, `parallel` of them at once."""

    __slots__ = (
        *("body", "failed", "items", "left", "node", "open", "results", "scope", "scopes", "tolerated"),
        *("most", "width"),
    )

    def __init__(self, node: int, scope: Scope | None, body: Body, items: Sequence[object]) -> None:
        self.node = node
        self.scope = scope
        self.body = body
        self.items = items
        self.results: list[object] = [None] * len(items)
        self.left = len(items)
        self.open = 0
        self.failed = 0
        failures = body.each.failures
        self.tolerated = int(failures * len(items) + 1e-9) if failures < 1 else int(failures)
        self.scopes: list[Scope] = []
        self.most = len(items) if body.each.parallel is None else min(body.each.parallel, len(items))
        """So many items may be open at once."""
        self.width = self.most
        """So many for now: a wide one is opened slice by slice, for the event loop is to turn meanwhile."""

    @property
    def has_room(self) -> bool:
        return self.open < self.width and len(self.scopes) < len(self.items)

    def narrow(self, width: int) -> None:
        self.width = min(width, self.most)

    def nodes(self) -> Iterator[int]:
        for scope in self.scopes:
            yield from scope.nodes()

    def planned(self, position: int) -> PlannedStep:
        return self.body.steps[position]
