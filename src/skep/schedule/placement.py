"""Where replicas go: hosts are filtered, then chosen one by one for a whole group.  Pure; O(hosts) per group.

A `Cluster` is a snapshot that remembers what it has given out, so that the groups of one plan do not count on
the same room.  Two plans made at the same moment may: overcommit is what absorbs that.
"""

from collections.abc import Iterable

from skep.model.errors import Exhausted
from skep.model.ids import HostName
from skep.model.placement import Constraint
from skep.schedule.candidates import Candidate, Group
from skep.schedule.refusals import explanation, lack, refusal, unmet
from skep.schedule.tree import Branch, Leaf


class Cluster:
    def __init__(self, candidates: Iterable[Candidate]) -> None:
        self._candidates = {one.host: one for one in sorted(candidates, key=lambda one: one.host)}
        self._cpus = {one.host: one.promised_cpus for one in self._candidates.values()}
        self._memory = {one.host: int(one.promised_memory) for one in self._candidates.values()}

    def place(self, group: Group) -> tuple[HostName, ...]:
        """A host for each replica of the group; asked the same twice of equal snapshots it answers the same.

        Raises:
            Exhausted: some have no host; nothing is given out.  Says which constraint no host satisfies, and
                how many hosts stand in the way by what.
        """
        leaves, others, reasons = self._sorted(group)
        tree = Branch.of(leaves, others, () if group.pack else group.spread, group.pack)
        chosen: list[HostName] = []
        while len(chosen) < group.replicas and (found := tree.take()) is not None:
            leaf, way = found
            chosen.append(leaf.candidate.host)
            reason = self._give(leaf, group)
            reasons |= {leaf.candidate.host: reason} if reason else {}
            tree.put(way, leaf, room=not reason)
        if len(chosen) < group.replicas:
            raise Exhausted(explanation(group, group.replicas - len(chosen), reasons, self.unmet(group)))
        for host in chosen:
            self.promise(host, group)
        return tuple(chosen)

    def put(self, group: Group, host: HostName) -> None:
        """The group's replicas go to this host, since what they need is there and nowhere else.

        Raises:
            Exhausted: it does not take them; says why.
        """
        candidate = self._candidates.get(host)
        if candidate is None:
            raise Exhausted(f"{group.what} has to run on host {host}, which is not there any more.")
        for _ in range(group.replicas):
            reason = refusal(candidate, group) or lack(
                candidate, group, self._cpus[host], self._memory[host], 0
            )
            if reason:
                raise Exhausted(
                    f"{group.what} has to run on host {host}, where its disks are, but that is {reason}."
                )
            self.promise(host, group)

    def promise(self, host: HostName, group: Group) -> None:
        """Count one replica of the group on the host."""
        self._cpus[host] += group.cpus
        self._memory[host] += group.memory

    def cluster_of(self, host: HostName) -> str:
        """The zone whose cluster the host is; "": it is a machine, or gone."""
        candidate = self._candidates.get(host)
        return candidate.cluster if candidate is not None else ""

    def unmet(self, group: Group) -> Constraint | None:
        """A constraint that no host satisfies, whatever room there is."""
        return unmet(self._candidates.values(), group)

    def refusals(self, group: Group) -> dict[HostName, str]:
        """Why each host that takes no replica of the group does not."""
        return self._sorted(group)[2]

    def _sorted(self, group: Group) -> tuple[list[Leaf], list[Leaf], dict[HostName, str]]:
        """Hosts that may take one more; the others; and what stands in the way there."""
        leaves, others, reasons = [], [], {}
        for host, candidate in self._candidates.items():
            leaf = Leaf(candidate, group, self._cpus[host], self._memory[host])
            reason = refusal(candidate, group) or _lack(leaf, group)
            if reason:
                reasons[host] = reason
                others.append(leaf)
            else:
                leaves.append(leaf)
        return leaves, others, reasons

    def _give(self, leaf: Leaf, group: Group) -> str:
        """Count one more there; answers why it is the last."""
        leaf.cpus += group.cpus
        leaf.memory += group.memory
        leaf.here += 1
        return _lack(leaf, group)


def _lack(leaf: Leaf, group: Group) -> str:
    return lack(leaf.candidate, group, leaf.cpus, leaf.memory, leaf.here)
