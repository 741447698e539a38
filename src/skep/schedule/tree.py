"""Where the next replica goes: down a tree of regions, zones, … and hosts, the emptiest branch first.

Every branch knows how many of the group's replicas are below it, so they stay within one of each other
wherever there is room; equally many are told apart by how full the branch is, then by name.
"""

from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush

from skep.schedule.candidates import Candidate, Group


class Leaf:
    """A host that may take replicas of the group."""

    __slots__ = ("candidate", "cpus", "group", "here", "memory")

    def __init__(self, candidate: Candidate, group: Group, cpus: float, memory: int) -> None:
        self.candidate = candidate
        self.group = group
        self.cpus = cpus
        self.memory = memory
        self.here = group.present.get(candidate.host, 0)

    @property
    def share(self) -> float:
        """How much of what it may promise it will have promised, with one more replica."""
        cpus, memory = self.cpus + self.group.cpus, self.memory + self.group.memory
        return max(_of(cpus, self.candidate.cpus), _of(memory, self.candidate.memory))


class Branch:
    """Hosts that have the values of some attributes in common."""

    __slots__ = ("branches", "heap", "name", "pack", "replicas")

    def __init__(self, name: str, pack: bool) -> None:
        self.name = name
        self.pack = pack
        self.replicas = 0
        self.branches: dict[str, Branch] = {}
        self.heap: list[tuple[tuple[float, ...], str, Leaf]] = []

    @classmethod
    def of(
        cls, leaves: Iterable[Leaf], others: Iterable[Leaf], spread: Sequence[str], pack: bool
    ) -> "Branch":
        """A tree of the hosts that have room; of the `others` only what they run counts."""
        root = cls("", pack)
        for leaf in leaves:
            root._below(leaf, spread, make=True).heap.append(root._entry(leaf))
        for leaf in others:
            if leaf.here:
                root._below(leaf, spread, make=False)
        root._heapify()
        return root

    def take(self) -> tuple[Leaf, list["Branch"]] | None:
        """The host that comes next, and the way to it; None: nowhere is room.  It is out of the tree then."""
        way = [self]
        while way[-1].branches:
            way.append(min(way[-1].branches.values(), key=Branch.order))
        if not way[-1].heap:
            return None
        return heappop(way[-1].heap)[2], way

    def put(self, way: list["Branch"], leaf: Leaf, *, room: bool) -> None:
        """One replica more is on the host; it goes on taking some if it has `room`."""
        for branch in way:
            branch.replicas += 1
        if room:
            heappush(way[-1].heap, self._entry(leaf))
        for above, below in zip(way[-2::-1], way[:0:-1], strict=True):
            if not below.heap and not below.branches:
                del above.branches[below.name]

    def order(self) -> tuple[float, float, str]:
        return (self.replicas, self.emptiest(), self.name)

    def emptiest(self) -> float:
        if self.heap:
            return self.heap[0][0][-1]
        return min((branch.emptiest() for branch in self.branches.values()), default=0.0)

    def _below(self, leaf: Leaf, spread: Sequence[str], *, make: bool) -> "Branch":
        branch = self
        branch.replicas += leaf.here
        for attribute in spread:
            value = leaf.candidate.attributes.get(attribute, "")
            if value not in branch.branches:
                if not make:
                    return branch
                branch.branches[value] = Branch(value, self.pack)
            branch = branch.branches[value]
            branch.replicas += leaf.here
        return branch

    def _entry(self, leaf: Leaf) -> tuple[tuple[float, ...], str, Leaf]:
        """Spread: the fewest of the group first, then the emptiest.  Pack: the fullest first.

        A tenant's own pool comes before shared ones.
        """
        shared = 0.0 if leaf.candidate.tenant is not None else 1.0
        order = (shared, -leaf.share) if self.pack else (shared, float(leaf.here), leaf.share)
        return order, leaf.candidate.host, leaf

    def _heapify(self) -> None:
        heapify(self.heap)
        for branch in self.branches.values():
            branch._heapify()


def _of(promised: float, capacity: float) -> float:
    return promised / capacity if capacity > 0 else float(promised > 0)
